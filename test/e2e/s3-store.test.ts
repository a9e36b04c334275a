import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CommitRecord } from '@cpt/contracts/artifact'
import { startS3, type S3Server } from '../../infra/s3/start.mjs'
import { makeSmallCorpus, smallRun } from '../harness/small-run.ts'
import { progressOf, resultOf, startRun } from '../harness/runs.ts'
import { checkpointsOf, claimsIn, commitsOf, jobsIn, nothingLeft } from '../harness/store.ts'
import { startSystem, type System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

/** A checkpoint after every other step, so that a kill has something to go on from. */
const run = () => smallRun({ placement: { ...smallRun().placement, train: { threads: 1, batchTokens: 4096, checkpointEverySteps: 2 } } })

let corpus: Awaited<ReturnType<typeof makeSmallCorpus>>
let s3: S3Server
let system: System
/** The bucket's objects as files, and the folder on this machine in which jobs work. */
let [bucket, workDir] = ['', '']
/** What the same run committed on a disk. */
let onDisk: Map<string, string>
beforeAll(async () => {
  corpus = await makeSmallCorpus()
  const roots = { small: corpus.dir }
  const disk = await startSystem({ roots })
  try {
    await resultOf(await startRun(disk, 'on-disk', run()), 600)
    onDisk = weightsByFingerprint(await commitsOf(disk.storeDir))
  } finally {
    await disk.stop()
  }
  s3 = await startS3()
  system = await startSystem({ roots, settings: () => ({ ...s3.env, CPT_STORE: `s3://${s3.bucket}/runs` }) })
  bucket = join(s3.folder, 'runs')
  workDir = system.config.workDir
})
afterAll(async () => {
  await system.stop()
  await s3.stop()
  await corpus.remove()
})

/** Every fingerprint, with the weights' digest where it is a training. */
const weightsByFingerprint = (records: CommitRecord[]): Map<string, string> =>
  new Map(records.map((r) => [r.fingerprint, r.stage === 'train' ? (r.result as { weightsSha256: string }).weightsSha256 : '']))

test('the lifecycle on S3 survives a killed trainer and a killed store, and commits what it commits on a disk, to the last bit', async () => {
  const handle = await startRun(system, 'on-s3', run())
  const trained = await until('a training with a checkpoint', async () => {
    const job = (await jobsIn(workDir)).find((j) => j.beat?.phase === 'train' && j.isRunning && j.end === null)
    if (job?.started == null) return null
    return (await checkpointsOf(bucket, job.fingerprint).catch(() => [])).length > 0 ? { ...job, started: job.started } : null
  }, 300)
  process.kill(trained.started.pid, 'SIGKILL')
  await until('the next attempt to be claimed', async () => (await claimsIn(bucket)).some((c) => c.fingerprint === trained.fingerprint && c.attempt === 2))
  await s3.kill()
  await s3.start()

  const { model, verdict } = await resultOf(handle, 600)
  expect(verdict).toBe('pass')
  expect(model).toMatch(/^s3:\/\/cpt\/runs\/data\//)
  expect(weightsByFingerprint(await commitsOf(bucket))).toEqual(onDisk)
  expect((await progressOf(handle)).recoveries).toBeGreaterThanOrEqual(1)
  await nothingLeft(workDir)
})

test('a second run finds all of it in the bucket', async () => {
  const before = (await claimsIn(bucket)).length
  const handle = await startRun(system, 'again', run())
  await resultOf(handle, 120)
  expect(new Set((await progressOf(handle)).stages.map((s) => s.state))).toEqual(new Set(['reused']))
  expect(await claimsIn(bucket)).toHaveLength(before)
})
