import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { localDiskStore } from '@cpt/activities/artifact-store/local-disk'
import { sha256 } from '@cpt/activities/identity'
import type { AlmrLrSweepInput, AlmrLrSweepResult } from '@cpt/contracts/almr-lr-sweep'
import type { RunProgress } from '@cpt/contracts/cpt-run'
import { controlQueue } from '@cpt/contracts/ids'
import { VerdictFile } from '@cpt/contracts/sweep-verdict'
import { pageOf, refusal, resolve, type RunHandle } from '../harness/runs.ts'
import { smallSweep } from '../harness/small-sweep.ts'
import { parkFirstTraining, startSweep, trainingsIn, trainKey, trialOf, type Sweep } from '../harness/sweeps.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { claimsIn, jobsIn, nothingLeft } from '../harness/store.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

let system: System
beforeAll(async () => { system = await startSmallSystem() })
afterAll(() => system.stop())

const batch = 4096
/** Trials that take long enough to do something to them; `seed` makes them new ones. */
const longSweep = (seed: number, over: AlmrLrSweepInput = {}): AlmrLrSweepInput => smallSweep({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [seed] }, tokensPerTrial: 24 * batch, ...over })

/** No test waits for their end. */
const endless: AlmrLrSweepInput = { tokensPerTrial: 100 * batch }

const trainings = () => trainingsIn(system.storeDir)
const statusOf = async (run: Pick<RunHandle, 'describe'>): Promise<string> => await run.describe().then((d) => d.status.name, () => 'NOT STARTED')
const progressOf = (sweep: Sweep) => sweep.query<RunProgress>('progress')
/** Two trials of a sweep at work, each in its steps. */
const twoAtWork = (sweep: Sweep, before: number) =>
  until(`two trials of ${sweep.workflowId} to take steps`, async () => {
    const jobs = (await jobsIn(system.storeDir)).filter((j) => j.isRunning && (j.beat?.step ?? 0) >= 1)
    return jobs.length >= 2 && (await trainings()).length >= before + 2 ? jobs : null
  }, 300)

/** A trial tells its sweep that it is over, and then closes. */
const allAre = (status: string, sweep: Sweep) =>
  until(`both trials to be ${status}`, async () => (await Promise.all([0, 1].map((i) => statusOf(trialOf(system, sweep, i))))).every((s) => s === status), 120)

let first: AlmrLrSweepResult

test('a sweep trains every point of its grid once and keeps its verdict with all it was made from', async () => {
  const sweep = await startSweep(system, smallSweep())
  first = await sweep.result()
  expect(first.state).toBe('complete')
  expect(first.trials.map((t) => [t.point.almr, t.point.peakLr, t.point.seed, t.status])).toEqual([0, 0.5].flatMap((a) => [1e-4, 1e-3].flatMap((lr) => [1, 2].map((seed) => [a, lr, seed, 'done']))))
  expect(await trainings()).toHaveLength(8)
  await nothingLeft(system.storeDir)
  const { stages } = await progressOf(sweep)
  expect(stages.filter((s) => s.stage === 'trial').map((s) => s.state)).toEqual(Array(8).fill('done'))

  const bytes = await localDiskStore({ store: system.storeDir }).read(first.verdictRef)
  expect(sha256(bytes)).toBe(first.verdictRef.sha256)
  const file = VerdictFile.parse(JSON.parse(Buffer.from(bytes).toString('utf8')))
  expect(file.verdict).toEqual(first.verdict)
  for (const { measurement } of file.trials) expect(measurement).toMatchObject({ tokens: 4 * batch, gpuSeconds: expect.closeTo(3, -1.5) as number })
  expect(first.verdict.words.at(-1)).toMatch(/^Budget: \d+ GPU-seconds spent, 0 reserved, no limit/)
  const page = await readFile(first.report ?? '', 'utf8')
  for (const { index } of first.trials) expect(page).toContain(encodeURIComponent(`${sweep.workflowId}/trial-${index}`))
})

test('swept again nothing is trained; asked to, it ends as unchanged with the same verdict; one point more costs only its trials', async () => {
  const claims = await claimsIn(system.storeDir)
  const again = await (await startSweep(system, smallSweep())).result()
  expect({ ...again.verdict, words: [] }).toEqual({ ...first.verdict, words: [] })
  expect(again.verdict.words.at(-1)).toMatch(/^Budget: 0 GPU-seconds spent/)
  const unchanged = await startSweep(system, smallSweep({ whenUnchanged: 'end', budgetGpuSeconds: 1e6 }))
  const result = await unchanged.result()
  expect({ ...result, verdict: { ...result.verdict, words: [] } }).toMatchObject({ state: 'unchanged', verdict: { ...first.verdict, words: [] } })
  expect((await progressOf(unchanged)).stages).toEqual([])
  expect(await claimsIn(system.storeDir)).toHaveLength(claims.length)

  await (await startSweep(system, smallSweep({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [1, 2, 3] } }))).result()
  const added = (await trainings()).length - claims.filter((c) => c.key === trainKey).length
  expect(added).toBe(2) // seed 3 at ALMR 0 and 0.5
})

test('two sweeps of the same at the same time train each point once', async () => {
  const before = (await trainings()).length
  const both = await Promise.all([startSweep(system, longSweep(50)), startSweep(system, longSweep(50))])
  const [a, b] = await Promise.all(both.map((s) => s.result()))
  expect(a?.verdict.cells).toEqual(b?.verdict.cells)
  expect((await trainings()).length - before).toBe(2)
})

test('a trial whose job fails parks while the others go on; what it varies cannot be patched; resolved, it is counted in', async () => {
  const { sweep, index } = await parkFirstTraining(system, () => startSweep(system, smallSweep({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [60, 61] }, tokensPerTrial: 24 * batch, run: { ...smallSweep().run, placement: { train: { threads: 1, batchTokens: batch, checkpointEverySteps: 1000 } } } })))
  await until('the sweep to wait for nothing else', async () => (await progressOf(sweep)).status === 'parked', 300)
  const page = await pageOf(sweep)
  expect(page).toContain(`Waits for a person: ${sweep.workflowId}/trial-${index} at ${trainKey} (NeedsAttention)`)
  expect((await progressOf(sweep)).stages.filter((s) => s.stage === 'trial').map((s) => s.state).sort()).toEqual(['done', 'done', 'done', 'parked'])

  const trial = trialOf(system, sweep, index)
  expect(await refusal(trial, { stage: trainKey, park: 1, action: 'retry', patch: { request: { schedule: { peakLr: 1e-5 } } } })).toContain('what this trial varies')
  await resolve(trial, { stage: trainKey, park: 1, action: 'retry', by: 'ann' })
  const result = await sweep.result()
  expect(result.state).toBe('complete')
  // killed attempts were paid for as well
  const file = VerdictFile.parse(JSON.parse(Buffer.from(await localDiskStore({ store: system.storeDir }).read(result.verdictRef)).toString('utf8')))
  const spent = Number(/^Budget: (\d+)/.exec(result.verdict.words.at(-1) ?? '')?.[1])
  expect(spent).toBeGreaterThanOrEqual(Math.floor(file.trials.reduce((sum, t) => sum + (t.measurement?.gpuSeconds ?? 0), 0)) - 1)
})

test('a killed worker and a killed server in the middle of a sweep cost no trial', async () => {
  const before = (await trainings()).length
  const sweep = await startSweep(system, longSweep(70))
  await twoAtWork(sweep, before)
  const begun = await trainings()
  await system.killWorker()
  await system.killServer()
  await system.startServer()
  await system.startWorker()
  const result = await sweep.result()
  expect(result.state).toBe('complete')
  // not even an attempt: the jobs went on, and were found again
  expect(await trainings()).toEqual(begun)
})

test('a paused sweep pauses its trials at their next commit, and they go on with it', async () => {
  const before = (await trainings()).length
  const sweep = await startSweep(system, longSweep(80))
  await twoAtWork(sweep, before)
  await sweep.executeUpdate('pause', { args: [{ by: 'ann' }] })
  await until('both jobs to leave', async () => (await jobsIn(system.storeDir)).every((j) => !j.isRunning), 120)
  for (const index of [0, 1]) expect(await trialOf(system, sweep, index).query<RunProgress>('progress')).toMatchObject({ status: 'paused' })
  await sweep.executeUpdate('resume', { args: [{ by: 'ann' }] })
  expect((await sweep.result()).state).toBe('complete')
})

test('a cancelled sweep takes its trials along and leaves no job', async () => {
  const before = (await trainings()).length
  const sweep = await startSweep(system, longSweep(90, endless))
  await twoAtWork(sweep, before)
  await sweep.cancel()
  await expect(sweep.result()).rejects.toThrow('cancelled')
  await allAre('CANCELLED', sweep)
  await nothingLeft(system.storeDir)
})

test('the reaper cancels the trials of a terminated sweep; a sweep of the same id takes over the place of those left', async () => {
  const before = (await trainings()).length
  const sweep = await startSweep(system, longSweep(100, endless))
  await twoAtWork(sweep, before)
  await sweep.terminate('pressed in the UI')
  const reaper = await system.client.workflow.start('jobReaper', { taskQueue: controlQueue, workflowId: `reaper-${randomUUID()}`, args: [] })
  await reaper.result()
  await allAre('CANCELLED', sweep)
  await nothingLeft(system.storeDir)

  // terminated again, and started anew by that name at once with another grid
  const begun = (await trainings()).length
  const second = await startSweep(system, longSweep(101, endless), sweep.workflowId)
  await twoAtWork(second, begun)
  await second.terminate('again')
  const third = await startSweep(system, smallSweep({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [1] } }), sweep.workflowId)
  const result = await third.result()
  expect(result.trials.map((t) => [t.point.seed, t.status])).toEqual([[1, 'done'], [1, 'done']])
  await nothingLeft(system.storeDir)
})

test('over the budget no trial begins and the verdict says what is missing; setBudget lets them begin', async () => {
  const poor = await (await startSweep(system, smallSweep({ budgetGpuSeconds: 1, expectedGpuSeconds: 2, grid: { almr: [0.5], peakLrs: [1e-3], seeds: [110] } }))).result()
  expect(poor).toMatchObject({ state: 'needs-attention', verdict: { chosen: null, missing: [{ status: 'unstarted' }, { status: 'unstarted' }] } })
  expect(poor.verdict.words.join(' ')).toMatch(/2 of 2 trials have no result.*0 of 1 GPU-seconds spent/)

  const before = (await trainings()).length
  const sweep = await startSweep(system, longSweep(111, { budgetGpuSeconds: 3, expectedGpuSeconds: 2 }))
  await until('the first trial to begin', async () => (await trainings()).length > before, 300)
  await expect(sweep.executeUpdate('setBudget', { args: [{ gpuSeconds: -1 }] })).rejects.toThrow()
  await sweep.executeUpdate('setBudget', { args: [{ gpuSeconds: 100_000, by: 'ann' }] })
  expect((await sweep.result()).state).toBe('complete')
})

test('a sweep that continues as new hands over its open trials, and notices when one of them is terminated', async () => {
  const tight = await startSmallSystem({ serverSettings: { 'limit.historyCount.suggestContinueAsNew': 40 } })
  try {
    const sweep = await startSweep(tight, longSweep(120, { grid: { almr: [0.5], peakLrs: [1e-3], seeds: [120, 121] }, parallel: 1 }))
    const executions = async () => {
      const found = []
      for await (const e of tight.client.workflow.list({ query: `WorkflowId = '${sweep.workflowId}'` })) found.push(e.status.name)
      return found
    }
    await until('the sweep to continue as new', async () => (await executions()).includes('CONTINUED_AS_NEW'), 300)
    const open = await until('a trial that an earlier execution began', async () => (await Promise.all([0, 1, 2, 3].map(async (i) => ({ i, status: await statusOf(trialOf(tight, sweep, i)) })))).find((t) => t.status === 'RUNNING') ?? null, 300)
    await trialOf(tight, sweep, open.i).terminate('pressed in the UI')
    const result = await tight.client.workflow.getHandle<() => Promise<AlmrLrSweepResult>>(sweep.workflowId).result()
    expect(result.state).toBe('needs-attention')
    expect(result.trials.map((t) => t.status).sort()).toEqual(['done', 'done', 'done', 'failed'])
  } finally {
    await tight.stop()
  }
})
