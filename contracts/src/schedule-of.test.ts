import { readFileSync } from 'node:fs'
import { CptRunSpec, type PlanStage } from './cpt-run.ts'
import { checkInput } from './parse-input.ts'
import { Schedule } from './train.ts'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { scheduleOf } from './schedule-of.ts'

const preset = CptRunSpec.parse(parse(readFileSync(new URL('../../samples/quickstart.yaml', import.meta.url), 'utf8')))
const { training } = preset
const batch = training.globalBatchTokens
const stageOf = (rounds: number, batches: number, schedule?: PlanStage['schedule']): PlanStage => {
  const [first] = preset.plan
  if (first === undefined) throw new TypeError('the preset has a plan')
  return { ...first, name: `s${rounds}-${batches}`, rounds, tokens: batches * batch, ...(schedule === undefined ? {} : { schedule }) }
}

test('a plan without schedules of its own keeps the request, and so the fingerprint, that it had', () => {
  const { schedule, peakLr, minLr, warmupTokens, decayTokens } = training
  const found = scheduleOf(preset, 9 * batch, 3 * batch)
  expect(found).toStrictEqual({ shape: schedule, peakLr, minLr, warmupTokens, decayTokens, totalTokens: 9 * batch, startTokens: 3 * batch })
})

test('stages before the first with a schedule share training.schedule, later ones are parts', () => {
  const plan = [stageOf(2, 101), stageOf(1, 50), stageOf(1, 40, { shape: 'linear', endLr: 0 }), stageOf(1, 30), stageOf(1, 20, { shape: 'cosine', endLr: 1e-4, rewarmTokens: batch, rewarmLr: 1e-3 })]
  const found = scheduleOf({ plan, training: { ...training, initialLr: 1e-7, decayShape: 'cosine' } }, 240 * batch, 150 * batch)
  expect(found).toMatchObject({ totalTokens: 150 * batch, startTokens: 150 * batch, initialLr: 1e-7, decayShape: 'cosine' })
  expect(found.parts).toEqual([
    { shape: 'linear', endLr: 0, tokens: 40 * batch },
    { shape: 'hold', tokens: 30 * batch },
    { shape: 'cosine', endLr: 1e-4, rewarmTokens: batch, rewarmLr: 1e-3, tokens: 20 * batch },
  ])
  expect(Schedule.parse(found)).toEqual(found)
})

describe('a stage\'s schedule that cannot be is found at the door', () => {
  const problems = (plan: PlanStage[], over = {}) => checkInput(CptRunSpec, { ...preset, plan: plan.map((s, i) => ({ ...s, name: `stage-${i}` })), training: { ...training, schedule: 'constant', ...over } }).problems?.map((p) => p.path)
  const whole = stageOf(1, 20)
  test.each([
    [[stageOf(1, 20, { shape: 'hold' })], ['plan.0.schedule']],
    [[whole, stageOf(1, 20, { shape: 'linear' })], ['plan.1.schedule.endLr']],
    [[whole, stageOf(1, 20, { shape: 'hold', endLr: 0 })], ['plan.1.schedule.endLr']],
    [[whole, stageOf(1, 20, { shape: 'hold', rewarmTokens: 1 })], ['plan.1.schedule.rewarmLr']],
    [[whole, stageOf(1, 20, { shape: 'hold', rewarmTokens: 21 * batch, rewarmLr: 1e-3 })], ['plan.1.schedule.rewarmTokens']],
    [[whole, stageOf(1, 20, { shape: 'one-minus-sqrt', endLr: 1e-5 })], undefined],
  ])('%#', (plan, expected) => {
    expect(problems(plan)).toEqual(expected)
  })
  test('a warm-up has to fit into the stages that share it', () => {
    const over = { schedule: 'cosine', warmupTokens: 21 * batch }
    expect(problems([whole, stageOf(1, 20, { shape: 'linear', endLr: 0 })], over)).toEqual(['training.warmupTokens'])
    expect(problems([whole, stageOf(1, 20)], over)).toBeUndefined()
  })
})
