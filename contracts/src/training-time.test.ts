import { expect, test } from 'vitest'
import type { CptRunSpec } from './cpt-run.ts'
import { Placement, type PlacementInput } from './job.ts'
import { Guard } from './train.ts'
import { trainingTime } from './training-time.ts'

const batch = 1000
const measured = { secondsPerStep: 2, firstStepSeconds: 5, modelSeconds: 10, loadSeconds: 4, saveStallSeconds: 0.5, saveSeconds: 3, evaluationSeconds: 6, evaluationTokens: 300 }
/** Two rounds of 100 steps, then one of 50. */
const run = (train: PlacementInput, guard?: CptRunSpec['training']['guard']) =>
  ({
    plan: [{ tokens: 200 * batch + 1500, rounds: 2 }, { tokens: 50 * batch, rounds: 1 }],
    training: { globalBatchTokens: batch, guard }, placement: { train: Placement.parse(train) },
  }) as unknown as CptRunSpec

test('every part of a training is told: steps, saves, starts, and evaluations where their tokens are known', () => {
  const time = trainingTime(run({ checkpointEverySteps: 10 }), measured, 900)
  expect(time.phases).toBe(3)
  // saves at 10, 20 … 90 and 10 … 40; the one at the end of each phase is waited for
  expect(time.saves).toEqual({ whileTraining: 9 + 9 + 4, waitedFor: 3, everySteps: 10 })
  expect(time.seconds).toEqual({
    steps: 250 * 2,
    saves: 22 * 0.5 + 3 * 3,
    starts: 3 * (10 + 3) + 2 * 4,
    evaluations: 54,
    inAll: 500 + 20 + 47 + 54,
  })
})

test('evaluations on the way are counted with those at the end of each phase', () => {
  const every = { ...run({ checkpointEverySteps: 10 }) }
  const time = trainingTime({ ...every, training: { ...every.training, validateEverySteps: 25 } }, measured, 900)
  // after steps 25, 50 and 75 of 100, and 25 of 50
  expect(time.evaluations).toBe(3 + 3 + 1 + 3)
  expect(time.seconds.evaluations).toBe(10 * 18)
})

test('without the tokens of the sets there is no time for evaluations, and none in the sum', () => {
  const { evaluationTokens, seconds } = trainingTime(run({ checkpointEverySteps: 10 }), measured, null)
  expect([evaluationTokens, seconds.evaluations, seconds.inAll]).toEqual([null, null, 500 + 20 + 47])
})

test('a guard saves once more before the first step of each phase', () => {
  const { saves, seconds } = trainingTime(run({ checkpointEverySteps: 10 }, Guard.parse({})), measured, null)
  expect(saves.waitedFor).toBe(6)
  expect(seconds.saves).toBe(22 * 0.5 + 6 * 3)
  expect(trainingTime(run({ checkpointEverySteps: 10 }, null), measured, null).saves.waitedFor).toBe(3)
})

test('where no interval is given it is a twentieth of the phase, or Young’s where steps are slow', () => {
  // 100 steps: every 5; 50 steps: every 3
  expect(trainingTime(run({}), measured, null).saves).toEqual({ whileTraining: 19 + 19 + 16, waitedFor: 3, everySteps: 5 })
  // √(2 · 0.5 · 400) = 20 s, one step of 15 s and then some
  expect(trainingTime(run({ checkpoints: { meanSecondsBetweenFailures: 400 } }), { ...measured, secondsPerStep: 15 }, null).saves.everySteps).toBe(2)
  expect(trainingTime(run({ checkpoints: { meanSecondsBetweenFailures: 400 } }), { ...measured, secondsPerStep: 25 }, null).saves.everySteps).toBe(1)
})

test('saves that take longer than their interval hold up the training for the rest', () => {
  const { seconds } = trainingTime(run({ checkpointEverySteps: 1 }), { ...measured, saveSeconds: 7 }, null)
  expect(seconds.saves).toBe((99 + 99 + 49) * (0.5 + 7 - 2) + 3 * 7)
})

test('a first step that is no slower than the others costs nothing', () => {
  expect(trainingTime(run({ checkpointEverySteps: 10 }), { ...measured, firstStepSeconds: 1 }, null).seconds.starts).toBe(3 * 10 + 2 * 4)
})
