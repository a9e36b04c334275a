import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { projectRatios } from './project-ratios.ts'

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
const normal = (weights: readonly number[]): number[] => weights.map((w) => w / sum(weights))
const weights = (n: number) => fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: n, maxLength: n })
/** Two sets of ratios of one size, a floor that `previous` keeps, and a cap. */
const problem = fc.integer({ min: 1, max: 12 }).chain((n) =>
  fc.record({ wanted: weights(n).map(normal), previous: weights(n).map(normal), floorShare: fc.double({ min: 0, max: 1, noNaN: true }), cap: fc.double({ min: 0, max: 1, noNaN: true }) }).map((p) => ({ ...p, floor: p.floorShare * Math.min(...p.previous) })),
)

/** Largest g·y over {Σ y = 1, low ≤ y ≤ high}: fill the best entries first. */
const bestOf = (g: readonly number[], low: readonly number[], high: readonly number[]): number => {
  const order = g.map((_, i) => i).sort((a, b) => g[b]! - g[a]!)
  let left = 1 - sum(low)
  let value = sum(g.map((x, i) => x * low[i]!))
  for (const i of order) {
    const take = Math.min(left, high[i]! - low[i]!)
    value += g[i]! * take
    left -= take
  }
  return value
}

test('the result sums to 1, keeps the floor, and no entry moves by more than the cap', () => {
  fc.assert(
    fc.property(problem, ({ wanted, previous, floor, cap }) => {
      const result = projectRatios(wanted, previous, floor, cap)
      expect(sum(result)).toBeCloseTo(1, 12)
      result.forEach((r, i) => {
        expect(r).toBeGreaterThanOrEqual(floor - 1e-15)
        expect(Math.abs(r - previous[i]!)).toBeLessThanOrEqual(cap + 1e-15)
      })
    }),
  )
})

test('no allowed point is nearer to what was wanted (variational inequality of the projection)', () => {
  fc.assert(
    fc.property(problem, ({ wanted, previous, floor, cap }) => {
      const result = projectRatios(wanted, previous, floor, cap)
      const towards = wanted.map((w, i) => w - result[i]!)
      const low = previous.map((r) => Math.max(floor, r - cap))
      const high = previous.map((r) => Math.min(1, r + cap))
      expect(bestOf(towards, low, high) - sum(towards.map((g, i) => g * result[i]!))).toBeLessThan(1e-9)
    }),
  )
})

test('a grid over three topics finds nothing nearer', () => {
  const [wanted, previous, floor, cap] = [[0.9, 0.08, 0.02], [0.4, 0.35, 0.25], 0.05, 0.1]
  const far = (x: readonly number[]): number => Math.hypot(...x.map((v, i) => v - wanted[i]!))
  const result = projectRatios(wanted, previous, floor, cap)
  const steps = Array.from({ length: 201 }, (_, i) => -cap + (i * cap) / 100)
  for (const a of steps) {
    for (const b of steps) {
      const point = [previous[0]! + a, previous[1]! + b, previous[2]! - a - b]
      if (Math.abs(a + b) > cap || point.some((p) => p < floor)) continue
      expect(far(point)).toBeGreaterThanOrEqual(far(result) - 1e-12)
    }
  }
  // the first rises by the cap; the others give up the same distance from what was wanted: 0.08 + 0.2 and 0.02 + 0.2
  expect(result).toEqual([expect.closeTo(0.5, 12), expect.closeTo(0.28, 12), expect.closeTo(0.22, 12)])
})

test('clamping and renormalising would break the cap here; the projection does not', () => {
  const previous = [0.94, 0.03, 0.03]
  const result = projectRatios([0.2, 0.4, 0.4], previous, 0, 0.03)
  expect(result[0]).toBeCloseTo(0.91, 12)
  expect(result[1]).toBeCloseTo(0.045, 12)
})

test('without floor and cap the result is what was wanted', () => {
  fc.assert(
    fc.property(problem, ({ wanted, previous }) => {
      projectRatios(wanted, previous, 0, 1).forEach((r, i) => expect(r).toBeCloseTo(wanted[i]!, 12))
    }),
  )
})

describe('a ratio below the floor', () => {
  test('rises towards it by the cap at most', () => {
    const result = projectRatios([0.001, 0.999], [0.001, 0.999], 0.05, 0.01)
    expect(result[0]).toBeCloseTo(0.011, 12)
  })
  test('stays where floors leave no room', () => {
    const result = projectRatios([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], 0.4, 1)
    expect(sum(result)).toBeCloseTo(1, 12)
    expect(result).toEqual([expect.closeTo(0.5, 12), expect.closeTo(0.3, 12), expect.closeTo(0.2, 12)])
  })
})

test('a cap of 0 changes nothing', () => {
  expect(projectRatios([1, 0], [0.3, 0.7], 0.1, 0)).toEqual([0.3, 0.7])
})
