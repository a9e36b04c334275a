import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { CommitRecord } from '@cpt/contracts/artifact'
import type { CptRunInput } from '@cpt/contracts/cpt-run'
import { draftName, draftsIn } from '@cpt/activities/artifact-store/drafts'
import { localDiskStore } from '@cpt/activities/artifact-store/local-disk'
import { lineOf, progressOf, resultOf, startRun, type RunHandle } from '../harness/runs.ts'
import { smallRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { checkpointsOf, claimsIn, commitsOf, forgetStages, jobsIn, nothingLeft, type JobEntry } from '../harness/store.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

const steps = 48
const checkpointEverySteps = 4
const trainKey = 'only/round-1/train'
/** Long enough for a kill in the middle, and with a checkpoint every few steps. */
const killRun = (): CptRunInput =>
  smallRun({
    synthesis: { numDocs: 0 },
    plan: [{ name: 'only', rounds: 1, tokens: steps * 4096, order: 'random', mixture: { languages: { zh: 0.4, en: 0.6 } } }],
    evaluation: { windowTokens: 128, maxTokensPerDoc: 128, benchmarks: [] },
    placement: { ...smallRun().placement, train: { threads: 1, batchTokens: 4096, checkpointEverySteps } },
  })

let system: System
let fingerprint: string
let undisturbed: Trained

interface Trained {
  weights: string
  curve: string
  model: string
}

const trainRecord = async (): Promise<CommitRecord> => {
  const record = (await commitsOf(system.storeDir)).find((r) => r.stage === 'train')
  if (record === undefined) throw new Error('the store has no commit of train')
  return record
}

const trained = async (): Promise<Trained> => {
  const { result } = await trainRecord()
  const { weightsSha256, curve, model } = result as { weightsSha256: string; curve: { uri: string }; model: { sha256: string } }
  const store = localDiskStore({ store: system.storeDir })
  return { weights: weightsSha256, curve: await readFile(await store.localPath(curve), 'utf8'), model: model.sha256 }
}

beforeAll(async () => {
  system = await startSmallSystem()
  await resultOf(await startRun(system, 'undisturbed', killRun()), 600)
  undisturbed = await trained()
  fingerprint = (await trainRecord()).fingerprint
  expect((await claimsIn(system.storeDir)).filter((c) => c.attempt > 1)).toEqual([])
})
afterAll(() => system.stop())

/** What training makes, and what stands on it, as if never asked for: the prepared corpus is reused. */
const forgetTraining = () => forgetStages(system.storeDir, (stage) => ['train', 'compare-perplexity', 'export-model'].includes(stage))

/** The attempt that trains now, once it has taken `step` steps. */
const attemptAt = (attempt: number, step: number): Promise<JobEntry & { started: { pid: number } }> =>
  until(`attempt ${attempt} of train to reach step ${step}`, async () => {
    const job = (await jobsIn(system.storeDir)).find((j) => j.fingerprint === fingerprint && j.attempt === attempt)
    if (job?.end != null) throw new Error(`attempt ${attempt} of train ended (${job.end.endClass}: ${job.end.message}) before step ${step}`)
    return job?.started != null && (job.beat?.step ?? 0) >= step ? { ...job, started: job.started } : null
  })

const checkpointAt = (step: number): Promise<number> =>
  until(`a checkpoint at step ${step} or later`, async () => (await checkpointsOf(system.storeDir, fingerprint).catch(() => [])).map((c) => c.step).filter((s) => s >= step).at(-1) ?? null)

const attempts = async () => (await claimsIn(system.storeDir)).filter((c) => c.fingerprint === fingerprint).length
const endOf = async (attempt: number) => (await jobsIn(system.storeDir)).find((j) => j.fingerprint === fingerprint && j.attempt === attempt)?.end

const expectSameModel = async (run: RunHandle): Promise<void> => {
  const { model } = await resultOf(run)
  expect(model).not.toBeNull()
  expect(await trained()).toEqual(undisturbed)
  expect(undisturbed.curve.trim().split('\n')).toHaveLength(steps)
}

afterEach(() => nothingLeft(system.storeDir))

test('a training process killed twice costs less than two checkpoint intervals each time and ends with the same weights and curve', async () => {
  await forgetTraining()
  const run = await startRun(system, 'kill-training', killRun())
  const lost: number[] = []
  for (const [attempt, atStep] of [[1, checkpointEverySteps + 1], [2, 5 * checkpointEverySteps + 1]] as const) {
    await checkpointAt(atStep - 1)
    const job = await attemptAt(attempt, atStep)
    process.kill(job.started.pid, 'SIGKILL')
    await until(`attempt ${attempt} to be on record as killed`, async () => (await endOf(attempt))?.endClass === 'killed')
    const died = (await jobsIn(system.storeDir)).find((j) => j.folder === job.folder)?.beat?.step ?? 0
    lost.push(died - ((await checkpointsOf(system.storeDir, fingerprint)).at(-1)?.step ?? 0))
  }
  await expectSameModel(run)
  expect(await attempts()).toBe(3)
  for (const stepsLost of lost) expect(stepsLost).toBeLessThan(2 * checkpointEverySteps)
  const restarts = ((await trainRecord()).result as { restarts: { attempt: number }[] }).restarts
  expect(restarts.map((r) => r.attempt)).toEqual([2, 3])
  const progress = await progressOf(run)
  expect(progress.recoveries).toBe(2)
  expect(lineOf(progress, trainKey)?.note).toContain('taken up again at step')
})

test('a killed worker comes back and re-attaches: the training is not disturbed and no second job is claimed', async () => {
  await forgetTraining()
  const run = await startRun(system, 'kill-worker', killRun())
  await checkpointAt(checkpointEverySteps)
  const before = await attemptAt(1, checkpointEverySteps)
  const pid = system.workerPid()
  await system.killWorker()
  // as if it had been killed while it wrote: the next worker removes it, see afterEach
  await writeFile(join(draftsIn(system.storeDir), (await draftName()).replace(`.tmp-${process.pid}-`, `.tmp-${pid}-`)), '{')
  // nobody watches, and it trains on
  const alone = await attemptAt(1, (before.beat?.step ?? 0) + checkpointEverySteps)
  expect(alone.started).toEqual(before.started)
  await system.startWorker()
  await expectSameModel(run)
  expect(await attempts()).toBe(1)
  expect(await endOf(1)).toMatchObject({ endClass: 'done' })
  expect((await progressOf(run)).recoveries).toBe(0)
})

test('a training that ends while no worker lives is found done by the next worker', async () => {
  await forgetTraining()
  const run = await startRun(system, 'worker-away', killRun())
  // late, so that what is left takes less than the lease, on a slow machine too
  await attemptAt(1, steps - 2)
  await system.killWorker()
  await until('the training to end by itself', async () => (await endOf(1))?.endClass === 'done')
  await system.startWorker()
  await expectSameModel(run)
  expect(await attempts()).toBe(1)
})

test('a killed server comes back on its database and the run goes on, with the same worker and the same job', async () => {
  await forgetTraining()
  const run = await startRun(system, 'kill-server', killRun())
  await checkpointAt(2 * checkpointEverySteps)
  const before = await attemptAt(1, 2 * checkpointEverySteps)
  const worker = system.workerPid()
  await system.killServer()
  await attemptAt(1, (before.beat?.step ?? 0) + checkpointEverySteps)
  await system.startServer()
  await expectSameModel(run)
  expect(system.workerPid()).toBe(worker)
  expect(await attempts()).toBe(1)
  expect(await endOf(1)).toMatchObject({ endClass: 'done' })
})
