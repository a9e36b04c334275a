import type { StratumCount } from '@cpt/contracts/count-strata'
import { Mixture } from '@cpt/contracts/mixture'
import { taxonomies } from '@cpt/contracts/topics'
import type { Kind } from '@cpt/contracts/units'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MixtureImpossible, planStrata } from './plan-strata.ts'

const count = (language: string, kind: Kind, topic: string | null, tokens = 1000): StratumCount => ({ language, kind, topic, docs: tokens > 0 ? 10 : 0, tokens, bytes: tokens * 4 })
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
const shareOf = (strata: ReturnType<typeof planStrata>['strata'], which: (s: (typeof strata)[number]) => boolean): number => sum(strata.filter(which).map((s) => s.ratio))

describe('the published plan of Llama-3-SynE (arXiv:2407.18743, billions of tokens)', () => {
  const kinds = {
    zh: { web: 0.7, encyclopedia: 0.05, book: 0.2, qa: 0.05 },
    en: { web: 0.4, encyclopedia: 0.05, book: 0.15, qa: 0.05, paper: 0.1, math: 0.1, code: 0.15 },
  }
  const stages = [
    { tokens: 92.5, mixture: Mixture.parse({ languages: { zh: 0.2, en: 0.8 }, kinds }) },
    { tokens: 7.5, mixture: Mixture.parse({ languages: { zh: 0.1, en: 0.7, synthetic: 0.2 }, kinds }) },
  ]
  const counts = [
    ...taxonomies['syne-zh/1'].map((topic, i) => count('zh', 'web', topic, 1000 + 317 * i)),
    ...taxonomies['syne-en/1'].map((topic, i) => count('en', 'web', topic, 5000 - 211 * i)),
    ...(['encyclopedia', 'book', 'qa'] as const).flatMap((kind) => [count('zh', kind, null), count('en', kind, null)]),
    ...(['paper', 'math', 'code'] as const).map((kind) => count('en', kind, null)),
    count('zh', 'synthetic', null, 300),
    count('en', 'synthetic', null, 700),
  ]
  const strata = stages.flatMap(({ tokens, mixture }) => planStrata(mixture, counts).strata.map((s) => ({ ...s, ratio: s.ratio * tokens })))

  test.each([
    ['web', 45.175], ['encyclopedia', 4.925], ['book', 15.7375], ['qa', 4.925], ['paper', 7.925], ['math', 7.925], ['code', 11.8875], ['synthetic', 1.5],
  ] as const)('%s gets %d', (kind, expected) => {
    expect(shareOf(strata, (s) => s.kind === kind)).toBeCloseTo(expected, 9)
  })
  test.each([['zh', 13.475], ['en', 31.7]] as const)('%s web gets %d', (language, expected) => {
    expect(shareOf(strata, (s) => s.kind === 'web' && s.language === language)).toBeCloseTo(expected, 9)
  })
  test.each([['zh', 19.25], ['en', 79.25]] as const)('%s without synthetic documents gets %d', (language, expected) => {
    expect(shareOf(strata, (s) => s.kind !== 'synthetic' && s.language === language)).toBeCloseTo(expected, 9)
  })
  test('all of it is 100', () => {
    expect(sum(strata.map((s) => s.ratio))).toBeCloseTo(100, 9)
  })
})

test('kinds without a ratio follow the tokens there are', () => {
  const { strata } = planStrata(Mixture.parse({ languages: { en: 1 } }), [count('en', 'book', null, 300), count('en', 'code', null, 100)])
  expect(strata.map((s) => [s.kind, s.ratio])).toEqual([['book', 0.75], ['code', 0.25]])
})

test('kinds that were not asked for are left out, and a note says so', () => {
  const { strata, notes } = planStrata(Mixture.parse({ languages: { en: 1 }, kinds: { en: { book: 1 } } }), [count('en', 'book', null), count('en', 'code', null)])
  expect(strata.map((s) => s.kind)).toEqual(['book'])
  expect(notes).toEqual(['en: code not asked for, left out'])
})

test('topics begin natural or uniform, as the mixture says', () => {
  const counts = [count('en', 'web', 'Law', 900), count('en', 'web', 'Others', 100)]
  expect(planStrata(Mixture.parse({ languages: { en: 1 } }), counts).topics).toEqual({ en: { Law: 0.9, Others: 0.1 } })
  expect(planStrata(Mixture.parse({ languages: { en: 1 }, topics: 'uniform' }), counts).topics).toEqual({ en: { Law: 0.5, Others: 0.5 } })
})

test('a mixture may name ratios of topics, and of sources where a language has no taxonomy', () => {
  const counts = [count('fr', 'web', 'source:gazette', 900), count('fr', 'web', 'source:crawl', 100), count('fr', 'web', 'source:spam', 500), count('fr', 'book', null, 300), count('en', 'web', 'Law', 900), count('en', 'web', 'Others', 100)]
  const mixture = Mixture.parse({ languages: { fr: 0.5, en: 0.5 }, kinds: { fr: { web: 0.8, book: 0.2 } }, topics: { fr: { 'source:gazette': 0.25, 'source:crawl': 0.75 } } })
  const { strata, topics, notes } = planStrata(mixture, counts)
  const ratios = Object.fromEntries(strata.map((s) => [`${s.kind} ${s.topic ?? ''}`, s.ratio]))
  expect(Object.keys(ratios)).toEqual(['web source:gazette', 'web source:crawl', 'book ', 'web Law', 'web Others'])
  expect(ratios['web source:gazette']).toBeCloseTo(0.1, 12)
  expect(ratios['web source:crawl']).toBeCloseTo(0.3, 12)
  expect(ratios['book ']).toBeCloseTo(0.1, 12)
  expect(topics['en']).toEqual({ Law: 0.9, Others: 0.1 })
  expect(notes).toEqual(['fr: source:spam not asked for, left out'])
  // a reweighting goes on from there
  expect(planStrata(mixture, counts, { fr: { 'source:gazette': 0.5, 'source:crawl': 0.5 } }).topics['fr']).toEqual({ 'source:gazette': 0.5, 'source:crawl': 0.5, 'source:spam': 0 })
})

test('known topic ratios hold, and a topic without documents gives its share to the others in proportion', () => {
  const counts = [count('en', 'web', 'Law'), count('en', 'web', 'Others'), count('en', 'web', 'Medicine', 0)]
  const { topics } = planStrata(Mixture.parse({ languages: { en: 1 } }), counts, { en: { Law: 0.3, Others: 0.1, Medicine: 0.6 } })
  expect(topics['en']?.['Law']).toBeCloseTo(0.75, 12)
  expect(topics['en']?.['Others']).toBeCloseTo(0.25, 12)
})

describe('a share with nothing behind it is refused by name', () => {
  const web = count('en', 'web', 'Law')
  test.each([
    ['a language', Mixture.parse({ languages: { zh: 0.2, en: 0.8 } }), {}, 'zh a share of 0.2'],
    ['a language whose documents were all dropped', Mixture.parse({ languages: { de: 0.2, en: 0.8 } }), {}, 'de a share of 0.2'],
    ['synthetic documents', Mixture.parse({ languages: { en: 0.8, synthetic: 0.2 } }), {}, 'synthetic a share of 0.2'],
    ['a kind', Mixture.parse({ languages: { en: 1 }, kinds: { en: { web: 0.9, math: 0.1 } } }), {}, 'en/math a share of 0.1'],
    ['a topic', Mixture.parse({ languages: { en: 1 }, topics: { en: { Law: 0.5, 'source:gone': 0.5 } } }), {}, 'en/source:gone a share of 0.5'],
    ['all topics that have a share', Mixture.parse({ languages: { en: 1 } }), { en: { Law: 0, Medicine: 1 } }, 'en topics that have a share'],
  ] as const)('%s', (_, mixture, topics, said) => {
    expect(() => planStrata(mixture, [web, count('de', 'web', 'Law', 0)], topics)).toThrow(MixtureImpossible)
    expect(() => planStrata(mixture, [web, count('de', 'web', 'Law', 0)], topics)).toThrow(said)
  })
})

test('a share of 0 needs no documents', () => {
  expect(planStrata(Mixture.parse({ languages: { zh: 0, en: 1 } }), [count('en', 'book', null)]).strata).toHaveLength(1)
})

test('whatever there is, ratios sum to 1 and every language keeps exactly its share', () => {
  const tokens = fc.integer({ min: 1, max: 1e9 })
  fc.assert(
    fc.property(fc.double({ min: 0.01, max: 0.99, noNaN: true }), fc.array(tokens, { minLength: 1, maxLength: 11 }), fc.array(tokens, { minLength: 1, maxLength: 11 }), tokens, tokens, (zh, zhTopics, enTopics, book, code) => {
      const counts = [
        ...zhTopics.map((n, i) => count('zh', 'web', `t${i}`, n)),
        ...enTopics.map((n, i) => count('en', 'web', `t${i}`, n)),
        count('en', 'book', null, book),
        count('en', 'code', null, code),
      ]
      const { strata, topics } = planStrata(Mixture.parse({ languages: { zh, en: 1 - zh } }), counts)
      expect(sum(strata.map((s) => s.ratio))).toBeCloseTo(1, 12)
      expect(shareOf(strata, (s) => s.language === 'zh')).toBeCloseTo(zh, 12)
      for (const ratios of Object.values(topics)) expect(sum(Object.values(ratios))).toBeCloseTo(1, 12)
    }),
  )
})
