import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { trialSpec } from './almr-lr-sweep.ts'
import { CptRunSpec } from './cpt-run.ts'

const run = CptRunSpec.parse(parse(readFileSync(new URL('../../samples/quickstart.yaml', import.meta.url), 'utf8')))
const sweep = { tokensPerTrial: 40 * run.training.globalBatchTokens, order: 'random' as const, retained: { en: 0.75, synthetic: 0.25 } }

test('a trial is one phase with ALMR of the added language, the rest in the proportions of the retained ones', () => {
  const spec = trialSpec(run, sweep, { almr: 0.2, peakLr: 8e-4, seed: 3 })
  expect(spec.plan).toHaveLength(1)
  expect(spec.plan[0]).toMatchObject({ rounds: 1, tokens: sweep.tokensPerTrial, order: 'random', reweight: false })
  for (const [language, share] of Object.entries({ zh: 0.2, en: 0.6, synthetic: 0.2 })) expect(spec.plan[0]?.mixture.languages[language]).toBeCloseTo(share, 12)
  expect(spec).toMatchObject({ seed: 3, training: { peakLr: 8e-4, minLr: 8e-5 } })
})

test('what a trial does not vary is the run’s', () => {
  const { seed: _seed, plan: _plan, training, ...rest } = trialSpec(run, sweep, { almr: 0.5, peakLr: run.training.peakLr, seed: 9 })
  const { seed: _s, plan: _p, training: own, ...others } = run
  expect(rest).toEqual(others)
  expect(training).toEqual(own)
})

test('without a share a language is not in the mixture: at ALMR 0 the added one, at ALMR 1 every other', () => {
  const languages = (almr: number) => Object.keys(trialSpec(run, sweep, { almr, peakLr: 1e-4, seed: 1 }).plan[0]?.mixture.languages ?? {}).sort()
  expect(languages(0)).toEqual(['en', 'synthetic'])
  expect(languages(1)).toEqual(['zh'])
})

test('whatever the point, shares sum to one', () => {
  fc.assert(fc.property(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0.01, max: 0.99, noNaN: true }), (almr, en) => {
    const { languages } = trialSpec(run, { ...sweep, retained: { en, synthetic: 1 - en } }, { almr, peakLr: 1e-4, seed: 1 }).plan[0]!.mixture
    expect(Object.values(languages).reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9)
  }))
})
