import { expect, test } from 'vitest'
import { startOrder, trialsOf } from './grid.ts'

const grid = { almr: [0.5, 0.25], peakLrs: [2e-4, 1e-4], seeds: [2, 1] }

test('trials are numbered by ALMR, learning rate and seed, with the control of every learning rate first', () => {
  expect(trialsOf(grid)).toHaveLength(3 * 2 * 2)
  expect(trialsOf(grid).slice(0, 5)).toEqual([
    { almr: 0, peakLr: 1e-4, seed: 1 }, { almr: 0, peakLr: 1e-4, seed: 2 }, { almr: 0, peakLr: 2e-4, seed: 1 }, { almr: 0, peakLr: 2e-4, seed: 2 }, { almr: 0.25, peakLr: 1e-4, seed: 1 },
  ])
})

test('what is named twice, the control too, is one trial', () => {
  expect(trialsOf({ almr: [0, 0.5, 0.5], peakLrs: [1e-4, 1e-4], seeds: [1] })).toEqual([{ almr: 0, peakLr: 1e-4, seed: 1 }, { almr: 0.5, peakLr: 1e-4, seed: 1 }])
})

test('every cell gets its first seed before any gets its second', () => {
  const trials = trialsOf(grid)
  const order = startOrder(grid)
  expect([...order].sort((a, b) => a - b)).toEqual(trials.map((_, i) => i))
  expect(order.map((i) => trials[i]?.seed)).toEqual([...Array<number>(6).fill(1), ...Array<number>(6).fill(2)])
})
