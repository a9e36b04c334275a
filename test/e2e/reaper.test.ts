import { afterAll, beforeAll, expect, test } from 'vitest'
import type { ReapReport } from '@cpt/contracts/activities'
import type { CptRunInput } from '@cpt/contracts/cpt-run'
import { reaperScheduleId } from '@cpt/contracts/ids'
import { pageOf, startRun, stageIs, type RunHandle } from '../harness/runs.ts'
import { smallRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { jobsIn, nothingLeft, type JobEntry } from '../harness/store.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

const leaseSeconds = 15
let system: System
beforeAll(async () => {
  system = await startSmallSystem({ settings: () => ({ CPT_LEASE_SECONDS: String(leaseSeconds) }) })
})
afterAll(() => system.stop())

const train = 'long/round-1/train'

/** A training that goes on for longer than it takes to end its run. */
const longRun = (seed: number): CptRunInput =>
  smallRun({
    seed,
    synthesis: { numDocs: 0 },
    plan: [{ name: 'long', rounds: 1, tokens: 150 * 4096, order: 'random', mixture: { languages: { zh: 0.4, en: 0.6 } } }],
    evaluation: { windowTokens: 128, maxTokensPerDoc: 128, benchmarks: [] },
  })

/** A run and its training job, once that takes steps. */
const trainingOf = async (name: string, seed: number): Promise<{ run: RunHandle; job: JobEntry }> => {
  const before = new Set((await jobsIn(system.storeDir)).map((j) => j.folder))
  const run = await startRun(system, name, longRun(seed))
  await stageIs(run, train, 'running', 300)
  const job = await until(`the training of ${name} to take steps`, async () => (await jobsIn(system.storeDir)).find((j) => !before.has(j.folder) && (j.beat?.step ?? 0) >= 1 && j.isRunning) ?? null, 300)
  return { run, job }
}
const nowOf = async (job: JobEntry): Promise<JobEntry | undefined> => (await jobsIn(system.storeDir)).find((j) => j.folder === job.folder)

test('the reaper is on a schedule, which a new worker leaves as the operator set it', async () => {
  const schedule = system.client.schedule.getHandle(reaperScheduleId)
  expect(await schedule.describe()).toMatchObject({ spec: { intervals: [{ every: 300_000 }] }, policies: { overlap: 'SKIP' }, state: { paused: false } })
  await schedule.pause('looking into something')
  await system.stopWorker()
  await system.startWorker()
  expect((await schedule.describe()).state).toMatchObject({ paused: true, note: 'looking into something' })
})

test('the reaper stops the job of a terminated run at once, says so, and leaves that of a living run alone', async () => {
  const alive = await trainingOf('alive', 2)
  const dead = await trainingOf('terminated', 1)
  await dead.run.terminate('pressed in the UI')
  expect((await nowOf(dead.job))?.isRunning).toBe(true)

  // by hand, while the schedule is paused: it is triggered as an operator does who does not want to wait
  const schedule = system.client.schedule.getHandle(reaperScheduleId)
  const before = (await schedule.describe()).info.numActionsTaken
  await schedule.trigger()
  const { workflowId } = await until('the schedule to start the reaper', async () => {
    const { info } = await schedule.describe()
    return info.numActionsTaken > before ? (info.recentActions.at(-1)?.action.workflow ?? null) : null
  })
  const reaper = system.client.workflow.getHandle<() => Promise<ReapReport>>(workflowId)
  const report = await reaper.result()
  expect(report.stopped).toMatchObject([{ askedBy: [`${dead.run.workflowId}: ${train}`], why: `${dead.run.workflowId} is terminated` }])
  expect(dead.job.folder.endsWith(report.stopped[0]!.job)).toBe(true)
  expect(report).toMatchObject({ looked: 2, left: [] })
  expect(await pageOf(reaper)).toMatch(/\*\*Stopped 1\*\* of 2 jobs without an end/)
  // it was asked first, so it saved before it left
  const stopped = await nowOf(dead.job)
  expect(stopped).toMatchObject({ isRunning: false, end: { endClass: 'stopped' } })
  expect(stopped?.end?.progressTokens).toBeGreaterThan(0)
  expect((await nowOf(alive.job))?.isRunning).toBe(true)

  await alive.run.cancel()
  await expect(alive.run.result()).rejects.toThrow('cancelled')
  await nothingLeft(system.storeDir)
})

test('without the reaper the job of a terminated run saves and ends once its lease has run out', async () => {
  const { run, job } = await trainingOf('left-alone', 3)
  await run.terminate('pressed in the UI')
  await nothingLeft(system.storeDir, 120)
  const orphan = await nowOf(job)
  expect(orphan?.end).toMatchObject({ endClass: 'orphaned' })
  expect(orphan?.end?.progressTokens).toBeGreaterThan(0)
})
