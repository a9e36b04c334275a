import { describe, expect, test } from 'vitest'
import type { SweepCell, TrialOutcome } from '@cpt/contracts/sweep'
import { confirm, type Confirmable } from './confirm.ts'
import { confirmationPoints, type Role } from './points.ts'

const loss = (perToken: number) => ({ perToken, perByte: perToken / 3 })
const cell = (almr: number, peakLr: number): SweepCell => ({ almr, peakLr, seeds: 2, measured: 2, added: loss(4.5 - almr), retained: loss(4 + almr / 20), state: 'feasible' })
const cells = [0, 0.2, 0.5, 0.8].flatMap((almr) => [1e-4, 4e-4, 1e-3].map((lr) => cell(almr, lr)))
const chosen = { almr: 0.5, peakLr: 4e-4 }
const roles = (planned: { role: Role }[]): Role[] => planned.map((p) => p.role)

describe('the points of a confirmation', () => {
  test('are the choice and one neighbour on each side, at the scaled learning rate', () => {
    const { points, without } = confirmationPoints(chosen, cells, 'both', 0.5)
    expect(points).toEqual([
      { role: 'chosen', almr: 0.5, proxyLr: 4e-4, targetLr: 2e-4 },
      { role: 'less-almr', almr: 0.2, proxyLr: 4e-4, targetLr: 2e-4 }, { role: 'more-almr', almr: 0.8, proxyLr: 4e-4, targetLr: 2e-4 },
      { role: 'lower-lr', almr: 0.5, proxyLr: 1e-4, targetLr: 5e-5 }, { role: 'higher-lr', almr: 0.5, proxyLr: 1e-3, targetLr: 5e-4 },
    ])
    expect(without).toEqual([])
  })

  test('lack a side where the grid ends, and that is said', () => {
    const { points, without } = confirmationPoints({ almr: 0.8, peakLr: 1e-4 }, cells, 'both', 1)
    expect(roles(points)).toEqual(['chosen', 'less-almr', 'higher-lr'])
    expect(without).toEqual(['more-almr', 'lower-lr'])
    expect(confirm(given({ points, without })).words.join(' ')).toContain('Not tried, for the grid of the sweep ends there: more of the added language, the lower learning rate.')
  })

  test('are the choice alone without a sweep', () => {
    expect(roles(confirmationPoints(chosen, [], 'both', 1).points)).toEqual(['chosen'])
  })
})

const { points } = confirmationPoints(chosen, cells, 'almr', 1)
const trial = (index: number, losses: [added: number, retained: number] | null): TrialOutcome => ({
  index, point: { almr: 0.5, peakLr: 4e-4, seed: 1 }, status: losses === null ? 'failed' : 'done', workflowId: `transfer/x/trial-${index}`,
  measurement: losses === null ? null : { added: loss(losses[0]), retained: loss(losses[1]), tokens: 1, gpuSeconds: 1, model: { uri: 'store:x/y', sha256: 'a'.repeat(64), bytes: 1 }, training: 'b'.repeat(64) },
})
const given = (over: Partial<Confirmable> = {}): Confirmable => ({
  points, without: [], trials: [trial(0, [3.8, 3.92]), trial(1, [4, 3.91]), trial(2, [3.7, 4.2])], pointOf: [0, 1, 2], base: { added: loss(4.2), retained: loss(3.9) },
  proxy: { cells, base: { added: loss(4.5), retained: loss(4) }, standardDeviation: 0.01 }, sameTokenizer: true, settings: { retentionToleranceNats: 0.05, z: 1.64 }, ...over,
})

test('a choice that forgets little enough and that no feasible neighbour beats holds, whatever an infeasible one learns', () => {
  const verdict = confirm(given())
  expect(verdict.outcome).toBe('holds')
  expect(verdict.points.map((p) => p.feasible)).toEqual([true, true, false])
  expect(verdict.points[0]?.predicted?.added).toBeCloseTo(-0.5, 12)
  expect(verdict.points[0]?.found?.added).toBeCloseTo(-0.4, 12)
})

test('a feasible neighbour that is better by more than the noise moves the optimum; within the noise it does not', () => {
  expect(confirm(given({ trials: [trial(0, [3.8, 3.92]), trial(1, [4, 3.91]), trial(2, [3.7, 3.93])] }))).toMatchObject({ outcome: 'moved', words: [expect.stringContaining('more of the added language (ALMR 0.8') as string, expect.anything()] })
  expect(confirm(given({ trials: [trial(0, [3.8, 3.92]), trial(1, [4, 3.91]), trial(2, [3.79, 3.93])] })).outcome).toBe('holds')
})

test('seeds of a point are averaged, and narrow the noise', () => {
  const twice = (added: number) => [trial(0, [3.8, 3.92]), trial(1, [3.8, 3.92]), trial(2, [added, 3.93]), trial(3, [added, 3.93])]
  expect(confirm(given({ trials: twice(3.781), pointOf: [0, 0, 2, 2] })).outcome).toBe('moved')
  expect(confirm(given({ trials: twice(3.785), pointOf: [0, 0, 2, 2] })).outcome).toBe('holds')
})

test('a choice that forgets too much on the target is refuted, even where nothing is better', () => {
  expect(confirm(given({ trials: [trial(0, [3.5, 3.951]), trial(1, [4, 3.91])] })).outcome).toBe('refuted')
})

test('without a result at the choice nothing is confirmed; without one beside it that is said', () => {
  expect(confirm(given({ trials: [trial(0, null), trial(1, [4, 3.91])] }))).toMatchObject({ outcome: 'incomplete', points: [{ found: null, feasible: null }, { feasible: true }, { found: null }] })
  expect(confirm(given({ trials: [trial(0, [3.8, 3.92]), trial(1, null)] })).words).toContain('Without a result: less of the added language.')
})

test('with another tokenizer changes are told per byte, and what is allowed stays per token of the target', () => {
  const verdict = confirm(given({ sameTokenizer: false }))
  expect(verdict).toMatchObject({ unit: 'nats/byte', outcome: 'holds' })
  expect(verdict.points[0]?.found?.added).toBeCloseTo(-0.4 / 3, 12)
})

test('without a sweep nothing is predicted, and it is said', () => {
  const verdict = confirm(given({ proxy: null }))
  expect(verdict.points.map((p) => p.predicted)).toEqual([null, null, null])
  expect(verdict.words.join(' ')).toContain('There is no sweep behind the choice')
})

test('a direction that the proxy had wrong is named', () => {
  expect(confirm(given({ trials: [trial(0, [4.3, 3.92]), trial(1, [4.25, 3.91])] })).words.join(' ')).toContain('The proxy had the direction of the added language wrong at: the choice, less of the added language.')
})
