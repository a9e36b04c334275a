import { expect, test } from 'vitest'
import type { StratumLoss } from '@cpt/contracts/evaluate-perplexity'
import { lossesOf } from './measure.ts'

const stratum = (over: Partial<StratumLoss>): StratumLoss => ({ language: 'zh', kind: 'web', topic: null, set: 'corpus', docs: 1, tokens: 100, bytes: 300, nllPerToken: 4, nllPerByte: 4 / 3, ...over })

test('losses are weighted by tokens, and per byte by what the tokens stand for', () => {
  const { added } = lossesOf([stratum({}), stratum({ kind: 'qa', tokens: 300, bytes: 600, nllPerToken: 2 }), stratum({ language: 'en' })], 'zh')
  expect(added.perToken).toBeCloseTo((400 + 600) / 400, 12)
  expect(added.perByte).toBeCloseTo(1000 / 900, 12)
})

test('what is kept is measured on the retention sets; without any, on the other languages', () => {
  const strata = [stratum({}), stratum({ language: 'en', nllPerToken: 3 })]
  expect(lossesOf(strata, 'zh').retained.perToken).toBe(3)
  expect(lossesOf([...strata, stratum({ language: 'en', set: 'retention', nllPerToken: 5 })], 'zh').retained.perToken).toBe(5)
})

test('without a measurement of either side a sweep is refused, by name of what is missing', () => {
  expect(() => lossesOf([stratum({ language: 'en' })], 'zh')).toThrow(/no text in zh.*minDocs/)
  expect(() => lossesOf([stratum({})], 'zh')).toThrow(/no text of what is to be kept/)
})
