import { afterAll, beforeAll, expect, test } from 'vitest'
import { reaperScheduleId } from '@cpt/contracts/ids'
import { startSystem, type System } from '../harness/system.ts'

let system: System
beforeAll(async () => {
  system = await startSystem()
})
afterAll(() => system.stop())

test('the reaper is on a schedule, which a new worker leaves as the operator set it', async () => {
  const schedule = system.client.schedule.getHandle(reaperScheduleId)
  expect(await schedule.describe()).toMatchObject({ spec: { intervals: [{ every: 300_000 }] }, policies: { overlap: 'SKIP' }, state: { paused: false } })
  await schedule.pause('looking into something')
  await system.stopWorker()
  await system.startWorker()
  expect((await schedule.describe()).state).toMatchObject({ paused: true, note: 'looking into something' })
})
