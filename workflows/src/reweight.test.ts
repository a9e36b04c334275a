import { ReweightSettings } from '@cpt/contracts/mixture'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { reweight, type TopicChange } from './reweight.ts'

const settings = (over: Partial<ReweightSettings>): ReweightSettings => ({ ...ReweightSettings.parse({}), ...over })
/** The paper's formula and nothing else. */
const paper = (over: Partial<ReweightSettings> = {}): ReweightSettings => settings({ alpha: 0.5, noiseK: 0, gamma: 0, floor: 0, cap: 1, ...over })
const change = (before: number, after: number, standardError = 0): TopicChange => ({ before, after, standardError })
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)

const ratios = { a: 0.5, b: 0.3, c: 0.2 }
const measured = { a: change(10, 11), b: change(20, 18), c: change(30, 30) }

describe('the formula of arXiv:2407.18743, by hand', () => {
  test('Δ = (1, −2, 0), so δ = (½, −1, 0), f = (1.25, 0.5, 1) and Σ r·f = 0.975', () => {
    const { ratios: after, factors } = reweight(ratios, measured, paper())
    expect(factors).toEqual({ a: 1.25, b: 0.5, c: 1 })
    expect(after['a']).toBeCloseTo(0.625 / 0.975, 12)
    expect(after['b']).toBeCloseTo(0.15 / 0.975, 12)
    expect(after['c']).toBeCloseTo(0.2 / 0.975, 12)
  })
  test('a topic weight scales its own step alone: f_b = 1 − 0.5 · 0.4', () => {
    const { ratios: after, factors } = reweight(ratios, measured, paper({ weights: { b: 0.4 } }))
    expect(factors['b']).toBeCloseTo(0.8, 12)
    expect(after['b']).toBeCloseTo(0.24 / (0.625 + 0.24 + 0.2), 12)
  })
  test('all topics fall: the one that falls least gains', () => {
    const { factors, ratios: after } = reweight({ a: 0.5, b: 0.5 }, { a: change(10, 6), b: change(10, 8) }, paper({ alpha: 0.8 }))
    expect(factors['a']).toBeCloseTo(0.2, 12)
    expect(factors['b']).toBeCloseTo(0.6, 12)
    expect(after['b']).toBeCloseTo(0.75, 12)
  })
})

describe('what the formula leaves open', () => {
  test('no change at all keeps the ratios and says so', () => {
    const result = reweight(ratios, { a: change(10, 10), b: change(20, 20), c: change(30, 30) }, paper())
    expect(result.ratios).toEqual({ a: expect.closeTo(0.5, 12), b: expect.closeTo(0.3, 12), c: expect.closeTo(0.2, 12) })
    expect(result.notes).toEqual(['no topic changed by more than its noise: ratios kept'])
  })
  test.each([
    ['missing', undefined],
    ['not a number before', change(NaN, 10)],
    ['infinite after', change(10, Infinity)],
    ['without a standard error', change(10, 11, NaN)],
  ])('a measurement that is %s leaves the factor at 1 and is noted', (_, odd) => {
    const { factors, notes, ratios: after } = reweight(ratios, { ...measured, a: odd }, paper())
    expect(factors).toEqual({ a: 1, b: 0.5, c: 1 })
    expect(notes).toEqual(['a: no usable measurement, ratio kept'])
    expect(sum(Object.values(after))).toBeCloseTo(1, 12)
  })
  test('nothing measured in the first round keeps the ratios', () => {
    expect(reweight(ratios, {}, settings({})).ratios).toEqual({ a: expect.closeTo(0.5, 12), b: expect.closeTo(0.3, 12), c: expect.closeTo(0.2, 12) })
  })
  test('a change within k standard errors is no change, one beyond counts by what is beyond', () => {
    const { factors } = reweight(ratios, { a: change(10, 11, 0.6), b: change(20, 18, 0.5), c: change(30, 30.5, 1) }, paper({ noiseK: 2 }))
    // thresholded: a max(0, 1 − 1.2) = 0 · b −(2 − 1) = −1 · c 0; the largest is mapped to 1
    expect(factors).toEqual({ a: 1, b: 0.5, c: 1 })
  })
  test('pure noise changes nothing, though the largest |Δ| is mapped to 1', () => {
    const { ratios: after } = reweight(ratios, { a: change(10, 10.1, 0.2), b: change(20, 19.9, 0.2), c: change(30, 30.05, 0.2) }, settings({}))
    expect(after).toEqual({ a: expect.closeTo(0.5, 12), b: expect.closeTo(0.3, 12), c: expect.closeTo(0.2, 12) })
  })
  test('γ bounds the divisor from below by the median level: δ = Δ / (0.5 · 20)', () => {
    const { factors } = reweight(ratios, measured, paper({ gamma: 0.5 }))
    expect(factors['a']).toBeCloseTo(1 + 0.5 * 0.1, 12)
    expect(factors['b']).toBeCloseTo(1 - 0.5 * 0.2, 12)
  })
  test('the largest α · w that is allowed still leaves every topic something', () => {
    const { ratios: after } = reweight({ a: 0.5, b: 0.5 }, { a: change(10, 5), b: change(10, 10) }, paper({ alpha: 0.999 }))
    expect(after['a']).toBeGreaterThan(0)
  })
})

const topicCount = fc.integer({ min: 1, max: 11 })
const level = fc.double({ min: 1, max: 1e4, noNaN: true })
const world = topicCount.chain((n) =>
  fc.record({
    ratios: fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: n, maxLength: n }).map((w) => Object.fromEntries(w.map((x, i) => [`t${i}`, x / sum(w)]))),
    changes: fc.array(fc.option(fc.record({ before: level, after: level, standardError: fc.double({ min: 0, max: 10, noNaN: true }) }), { nil: undefined }), { minLength: n, maxLength: n }).map((c) => Object.fromEntries(c.map((x, i) => [`t${i}`, x]))),
    alpha: fc.double({ min: 0, max: 0.999, noNaN: true }),
    noiseK: fc.double({ min: 0, max: 3, noNaN: true }),
    gamma: fc.double({ min: 0, max: 1, noNaN: true }),
    floor: fc.double({ min: 0, max: 0.2, noNaN: true }),
    cap: fc.double({ min: 0, max: 1, noNaN: true }),
    measure: fc.constant('ppl' as const),
    weights: fc.dictionary(fc.constantFrom('t0', 't1', 't2'), fc.double({ min: 0, max: 1, noNaN: true })),
  }),
)

test('ratios stay shares: finite, not negative, sum 1, within the cap, and no lower than floor or before', () => {
  fc.assert(
    fc.property(world, ({ ratios: before, changes, ...rest }) => {
      const { ratios: after } = reweight(before, changes, rest)
      expect(Object.keys(after).sort()).toEqual(Object.keys(before).sort())
      expect(sum(Object.values(after))).toBeCloseTo(1, 10)
      for (const [topic, r] of Object.entries(after)) {
        expect(r).toBeGreaterThanOrEqual(0)
        expect(Math.abs(r - before[topic]!)).toBeLessThanOrEqual(rest.cap + 1e-12)
        expect(r).toBeGreaterThanOrEqual(Math.min(rest.floor, before[topic]!) - 1e-12)
      }
    }),
  )
})

test('of two topics measured alike, the one whose perplexity rises more never gets the smaller factor', () => {
  fc.assert(
    fc.property(world, fc.double({ min: 0, max: 10, noNaN: true }), ({ ratios: before, changes, ...rest }, standardError) => {
      const alike = Object.fromEntries(Object.entries(changes).map(([t, c]) => [t, c && { ...c, standardError }]))
      const { factors } = reweight(before, alike, { ...rest, weights: {} })
      const rises = Object.entries(alike).flatMap(([t, c]) => (c === undefined ? [] : [{ rise: c.after - c.before, factor: factors[t]! }])).sort((a, b) => a.rise - b.rise)
      rises.forEach((r, i) => expect(r.factor).toBeGreaterThanOrEqual((rises[i - 1]?.factor ?? -Infinity) - 1e-12))
    }),
  )
})
