import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ActivityCancellationDetails, ApplicationFailure, type Logger } from '@temporalio/common'
import { MockActivityEnvironment } from '@temporalio/testing'
import type { FailureEvidence } from '@cpt/contracts/failures'
import { Placement, type Beat, type EndRecord, type JobRequest } from '@cpt/contracts/job'
import { stages } from '@cpt/contracts/stages'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { localDiskStore } from './artifact-store/local-disk.ts'
import { askerOf, claimAttempt, claimsOf, jobFolder } from './claims.ts'
import type { Deps } from './deps.ts'
import { ensureStopped } from './ensure-stopped.ts'
import { sha256 } from './identity.ts'
import { JobNotStarted, type JobFolder, type JobRunner, type JobState } from './job-runner/job-runner.ts'
import { pauseJobs, resumeJobs } from './pause-jobs.ts'
import { liveLine } from './live-progress.ts'
import type { RangeWork } from './range-work.ts'
import { watchRange } from './watch-range.ts'

const fingerprint = sha256('some training')

const say = () => undefined
const silent: Logger = { log: say, trace: say, debug: say, info: say, warn: say, error: say }
const activityOf = (run: string) => new MockActivityEnvironment({ workflowExecution: { workflowId: 'cpt/x', runId: run } }, { logger: silent })

/** A cluster without machines: jobs run until the test ends them. */
const fakeCluster = () => {
  const jobs = new Map<string, JobState>()
  const submitted: JobRequest[] = []
  const stopped: string[] = []
  const end = (attempt: number, endClass: EndRecord['endClass'], over: Partial<EndRecord> = {}): void => {
    const path = [...jobs.keys()].find((p) => p.endsWith(`/${attempt}`))
    if (path === undefined) throw new Error(`no attempt ${attempt}`)
    jobs.set(path, { state: 'ended', end: { format: 'cpt-end/1', endClass, type: 'JobEnded', message: `it ${endClass}`, exitCode: 1, signal: null, progressTokens: 0, logTail: [], wallSeconds: 1, ...over } })
  }
  const runner: JobRunner = {
    name: 'local',
    look: (job) => Promise.resolve(jobs.get(job.path) ?? { state: 'absent' }),
    submit: (job, request) => {
      submitted.push(request)
      jobs.set(job.path, { state: 'running', beat: null })
      return Promise.resolve()
    },
    dumpStacks: () => Promise.resolve(),
    stop: (job) => {
      stopped.push(job.path)
      if (jobs.get(job.path)?.state === 'running') end(job.attempt, 'stopped')
      return Promise.resolve()
    },
  }
  const beat = (attempt: number, over: Partial<Beat>): void => {
    const path = [...jobs.keys()].find((p) => p.endsWith(`/${attempt}`))
    jobs.set(path!, { state: 'running', beat: { phase: 'training', done: 0, total: 10, unit: '', seq: 1, ...over } })
  }
  return { runner, jobs, submitted, stopped, end, beat, lose: (attempt: number) => jobs.set([...jobs.keys()].find((p) => p.endsWith(`/${attempt}`))!, { state: 'gone', end: { endClass: 'killed', message: 'the process is gone and left no end record', exitCode: null, signal: null } }) }
}

describe('watching a range', { timeout: 30_000 }, () => {
  let root = ''
  let deps: Deps
  let cluster: ReturnType<typeof fakeCluster>
  let committed = false
  let progress = ''

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'cpt-watch-'))
    cluster = fakeCluster()
    deps = { config: { roots: { store: root }, leaseSeconds: 120 }, store: localDiskStore({ store: root }), workDir: root, runners: { local: cluster.runner }, log: pino({ level: 'silent' }) } as unknown as Deps
    committed = false
    progress = 'nothing'
  })
  afterEach(() => rm(root, { recursive: true }))

  const workOf = (over: Partial<RangeWork> = {}): RangeWork => ({
    stage: stages.train, fingerprint, range: 0, request: { plan: 'p' }, parents: [], placement: Placement.parse({}), detach: new AbortController().signal, live: liveLine(deps, 'stage-1/round-1/train'), asker: askerOf('cpt/x', 'run-1', 'stage-1/round-1/train'), key: 'stage-1/round-1/train', decision: 0,
    pending: () => Promise.resolve(null), isCommitted: () => Promise.resolve(committed), progress: () => Promise.resolve(progress), ...over,
  })
  /** An activity attempt of a run, as its worker would run it. */
  const watch = (over: Partial<RangeWork> = {}, run = 'run-1') => {
    const env = activityOf(run)
    const result = env.run(watchRange, deps, workOf({ asker: askerOf('cpt/x', run, 'stage-1/round-1/train'), ...over }))
    result.catch(() => undefined)
    return { env, result, heartbeats: heartbeatsOf(env) }
  }
  const heartbeatsOf = (env: MockActivityEnvironment): unknown[] => {
    const seen: unknown[] = []
    env.on('heartbeat', (details: unknown) => seen.push(details))
    return seen
  }
  const submissions = async (count: number): Promise<void> => { await vi.waitFor(() => expect(cluster.submitted).toHaveLength(count), { timeout: 10_000, interval: 10 }) }
  const askers = async (job: JobFolder): Promise<string[]> => await readdir(join(job.path, 'askers'))
  const attempt = (n: number): JobFolder => jobFolder(root, fingerprint, 0, n)
  const failureOf = async (promise: Promise<unknown>): Promise<ApplicationFailure> => {
    const failure: unknown = await promise.then(() => null, (e: unknown) => e)
    expect(failure).toBeInstanceOf(ApplicationFailure)
    return failure as ApplicationFailure
  }
  /** Lets the attempt run and end so; returns the failure the activity throws. */
  const failOnce = async (n: number, endClass: EndRecord['endClass'], over: Partial<EndRecord> = {}, work: Partial<RangeWork> = {}): Promise<ApplicationFailure> => {
    const { result } = watch(work)
    await submissions(n)
    cluster.end(n, endClass, over)
    return await failureOf(result)
  }

  test('claims attempt 1, submits it with its request, and returns when the work is committed', async () => {
    const { result } = watch()
    await submissions(1)
    expect(cluster.submitted[0]).toMatchObject({ format: 'cpt-job/1', stage: 'train', fingerprint, range: 0, attempt: 1, request: { plan: 'p' }, token: `${fingerprint.slice(0, 12)}-r0-a1`, leaseSeconds: 120 })
    expect(JSON.parse(await readFile(join(attempt(1).path, 'request.json'), 'utf8'))).toEqual(cluster.submitted[0])
    committed = true
    cluster.end(1, 'done')
    expect(await result).toBe(1)
    expect(await claimsOf(deps.store, fingerprint, 0)).toMatchObject([{ workflow: askerOf('cpt/x', 'run-1', 'stage-1/round-1/train'), key: 'stage-1/round-1/train', decision: 0, progress: 'nothing' }])
  })

  test('attaches to the running job instead of submitting a second one', async () => {
    const first = watch()
    await submissions(1)
    first.env.cancel('WORKER_SHUTDOWN', new ActivityCancellationDetails({ workerShutdown: true }))
    await expect(first.result).rejects.toThrow()
    const second = watch()
    await vi.waitFor(() => expect(second.heartbeats.length).toBeGreaterThan(0), { timeout: 10_000 })
    committed = true
    cluster.end(1, 'done')
    expect(await second.result).toBe(1)
    expect(cluster.submitted).toHaveLength(1)
    expect(cluster.stopped).toEqual([])
  })

  test('submits what a worker claimed and did not live to submit', async () => {
    await claimAttempt(deps.store, fingerprint, 0, 1, { workflow: 'other', run: 'r', key: 'k', decision: 0, runner: 'local', host: 'gone', progress: '', at: '' })
    const { result } = watch()
    await submissions(1)
    expect(cluster.submitted[0]?.attempt).toBe(1)
    committed = true
    cluster.end(1, 'done')
    await result
  })

  test('renews the lease with a growing counter, and beats with the live numbers', async () => {
    const { env, result, heartbeats } = watch()
    await submissions(1)
    cluster.beat(1, { step: 3, tokens: 100, loss: 4.5, done: 3 })
    const lease = () => readFile(join(attempt(1).path, 'lease'), 'utf8')
    const before = await lease()
    await vi.waitFor(async () => expect(Number((await lease()).split(' ')[1])).toBeGreaterThan(Number(before.split(' ')[1]) + 1), { timeout: 10_000 })
    expect(heartbeats.at(-1)).toMatchObject({ key: 'stage-1/round-1/train', phase: 'training', done: 3, total: 10, step: 3, tokens: 100, loss: 4.5, attempts: 1 })
    env.cancel()
    await expect(result).rejects.toThrow()
  })

  describe('a job that ended before its work was committed', () => {
    test.each([['failed', 'JobEnded'], ['killed', 'JobEnded'], ['again', 'StoreUnreachable'], ['stopped', 'JobEnded'], ['orphaned', 'JobEnded']] as const)('as %s is tried again (%s): the next activity attempt claims the next job', async (endClass, type) => {
      const failure = await failOnce(1, endClass)
      expect(failure).toMatchObject({ type, nonRetryable: false, message: `train, attempt 1: it ${endClass}` })
      const { result } = watch()
      await submissions(2)
      expect(cluster.submitted[1]?.attempt).toBe(2)
      committed = true
      cluster.end(2, 'done')
      expect(await result).toBe(2)
    })
    test.each([['bad-request', 'BadRequest'], ['bad-data', 'BadData'], ['diverged', 'LossNotFinite'], ['do-not-restart', 'NeedsAttention']] as const)('as %s parks at once as %s', async (endClass, type) => {
      expect(await failOnce(1, endClass, { type })).toMatchObject({ type, nonRetryable: true })
    })
    test('for a full disk parks at once: trying again unchanged cannot help', async () => {
      expect(await failOnce(1, 'failed', { type: 'DiskFull' })).toMatchObject({ type: 'DiskFull', nonRetryable: true })
    })
    test('parks with the type of its cause, and by which rule', async () => {
      const failure = await failOnce(1, 'failed', { message: "train: No module named 'torch'", logTail: [] }, { })
      expect(failure).toMatchObject({ type: 'JobEnded', nonRetryable: false })
      const next = await failOnce(2, 'failed', { message: "train: ModuleNotFoundError: No module named 'torch'" })
      expect(next).toMatchObject({ type: 'EnvironmentBroken', nonRetryable: true })
      expect(next.details?.[0] as FailureEvidence).toMatchObject({ failureClass: 'environment', rule: 'the environment lacks something' })
    })
    test('though its watcher did not live to say so parks all the same: the next watcher reads the end', async () => {
      const first = watch()
      await submissions(1)
      first.env.cancel('WORKER_SHUTDOWN', new ActivityCancellationDetails({ workerShutdown: true }))
      await expect(first.result).rejects.toThrow()
      cluster.end(1, 'bad-data', { type: 'BadData' })
      expect(await failureOf(watch().result)).toMatchObject({ type: 'BadData', nonRetryable: true })
      expect(cluster.submitted).toHaveLength(1)
    })
    test('though it says it is done is corrupt', async () => {
      expect(await failOnce(1, 'done')).toMatchObject({ type: 'StoreCorrupt', nonRetryable: true })
    })
    test('without a trace is put on record as killed, and tried again', async () => {
      const { result } = watch()
      await submissions(1)
      cluster.lose(1)
      const record = await vi.waitFor(() => readFile(join(attempt(1).path, 'end.json'), 'utf8'), { timeout: 10_000 })
      expect(JSON.parse(record)).toMatchObject({ endClass: 'killed', message: 'the process is gone and left no end record' })
      cluster.end(1, 'killed')
      expect(await failureOf(result)).toMatchObject({ type: 'JobEnded', nonRetryable: false })
    })
  })

  describe('a job that runs out of memory', () => {
    const request = { plan: 'p', sequenceTokens: 1024, globalBatchTokens: 8192 }
    const outOfMemory = { message: 'train: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.' }
    const batches = () => cluster.submitted.map((r) => r.placement.batchTokens)
    const asked = (over: Partial<Placement> = {}): Partial<RangeWork> => ({ request, placement: { ...Placement.parse({}), ...over } })

    test('is tried again with half the micro-batch, in whole sequences, down to one; then a person is asked', async () => {
      for (const n of [1, 2, 3]) {
        expect(await failOnce(n, 'failed', outOfMemory, asked())).toMatchObject({ type: 'OutOfMemory', nonRetryable: false, message: expect.stringContaining(`micro-batches of ${[4096, 2048, 1024][n - 1]} tokens`) })
      }
      expect(await failOnce(4, 'failed', outOfMemory, asked())).toMatchObject({ type: 'OutOfMemory', nonRetryable: true, message: expect.stringContaining('no smaller micro-batch') })
      expect(batches()).toEqual([16_384, 4096, 2048, 1024])
      expect(cluster.submitted.map((r) => r.request)).toEqual([request, request, request, request])
      expect(await failureOf(watch(asked()).result)).toMatchObject({ type: 'OutOfMemory', nonRetryable: true })
      expect(cluster.submitted).toHaveLength(4)
    })
    test('goes on with the smaller micro-batch when something else ends it, and says so on the page', async () => {
      await failOnce(1, 'killed', { message: 'the process was ended by SIGKILL; the kernel ended 1 process(es) for lack of memory meanwhile', signal: 'SIGKILL', exitCode: null }, asked({ batchTokens: 4096 }))
      await failOnce(2, 'preempted', {}, asked({ batchTokens: 4096 }))
      const { env, result, heartbeats } = watch(asked({ batchTokens: 4096 }))
      await submissions(3)
      cluster.beat(3, {})
      await vi.waitFor(() => expect(heartbeats.at(-1)).toMatchObject({ phase: 'training (micro-batches of 2048 tokens after running out of memory with 4096)' }), { timeout: 10_000 })
      expect(batches()).toEqual([4096, 2048, 2048])
      env.cancel('WORKER_SHUTDOWN', new ActivityCancellationDetails({ workerShutdown: true }))
      await expect(result).rejects.toThrow()
    })
    test('takes what a person patched it to', async () => {
      await failOnce(1, 'failed', outOfMemory, asked())
      await failOnce(2, 'failed', outOfMemory, { ...asked({ batchTokens: 8192 }), decision: 1 })
      expect(batches()).toEqual([16_384, 8192])
    })
    test('and has no micro-batch parks at once', async () => {
      expect(await failOnce(1, 'failed', { type: 'OutOfMemory', message: 'dedup: out of memory' }, { ...asked(), stage: stages.dedup })).toMatchObject({ type: 'OutOfMemory', nonRetryable: true })
    })
  })

  test('a machine that lost a job twice is excluded from the third try', async () => {
    const nodeFail = (nodes: string[]): Partial<EndRecord> => ({ scheduler: { job: '1', state: 'NODE_FAIL', reason: 'NodeDown', exitCode: '0:0', nodes } })
    Object.assign(deps.runners, { slurm: cluster.runner })
    const onSlurm = { placement: Placement.parse({ runner: 'slurm' }) }
    for (const [n, nodes] of [['n1', 'n2'], ['n2'], ['n3']].entries()) expect(await failOnce(n + 1, 'node-lost', nodeFail(nodes), onSlurm)).toMatchObject({ type: 'NodeTrouble', nonRetryable: false })
    await failOnce(4, 'failed', {}, onSlurm)
    expect(cluster.submitted.map((r) => r.placement.excludeNodes)).toEqual([[], [], ['n2'], ['n2']])
  })

  describe('the budget', () => {
    test('is three failures without anything new: then a person is asked, with evidence, and nothing more is submitted', async () => {
      for (const n of [1, 2, 3]) await failOnce(n, n === 2 ? 'killed' : 'failed')
      const failure = await failureOf(watch().result)
      expect(failure).toMatchObject({ type: 'NeedsAttention', nonRetryable: true, message: 'train: 3 attempts in a row failed without committing anything new; the last: it failed' })
      expect(failure.details?.[0] as FailureEvidence).toMatchObject({ stage: 'train', fingerprint, attempts: 3 })
      expect(cluster.submitted).toHaveLength(3)
    })
    test('is refilled by progress', async () => {
      for (const n of [1, 2]) await failOnce(n, 'failed')
      progress = 'a checkpoint'
      for (const n of [3, 4, 5]) await failOnce(n, 'failed')
      expect(await failureOf(watch().result)).toMatchObject({ type: 'NeedsAttention' })
      expect(cluster.submitted).toHaveLength(5)
    })
    test('is refilled by a decision of a person', async () => {
      for (const n of [1, 2, 3]) await failOnce(n, 'failed')
      expect(await failOnce(4, 'failed', {}, { decision: 1 })).toMatchObject({ type: 'JobEnded' })
    })
    test.each(['stopped', 'orphaned', 'preempted', 'time-limit', 'superseded'] as const)('does not count jobs that ended as %s', async (endClass) => {
      for (const n of [1, 2, 3, 4]) await failOnce(n, endClass)
      expect(await failOnce(5, 'failed')).toMatchObject({ type: 'JobEnded', nonRetryable: false })
    })
    test('does not count what a scheduler says was lost, though the end record says killed', async () => {
      const lost = { scheduler: { job: '1', state: 'PREEMPTED', reason: 'None', exitCode: '0:9', nodes: ['n1'] } }
      for (const n of [1, 2, 3, 4]) await failOnce(n, 'killed', lost)
      expect(await failOnce(5, 'failed')).toMatchObject({ type: 'JobEnded', nonRetryable: false })
    })
    test('counts failures of this run alone', async () => {
      for (const n of [1, 2, 3]) await failOnce(n, 'failed')
      const other = watch({}, 'run-2')
      await submissions(4)
      committed = true
      cluster.end(4, 'done')
      expect(await other.result).toBe(4)
    })
    test('counts a job that stood still and had to be stopped, so a job that hangs parks after three times', async () => {
      const hanging = { placement: { ...Placement.parse({}), noProgressSeconds: 0.1 } }
      for (const n of [1, 2, 3]) {
        expect(await failureOf(watch(hanging).result)).toMatchObject({ type: 'NoProgress', nonRetryable: false })
        expect(cluster.stopped).toContain(attempt(n).path)
      }
      expect(await failureOf(watch(hanging).result)).toMatchObject({ type: 'NeedsAttention', nonRetryable: true })
      expect(cluster.submitted).toHaveLength(3)
    })
    test('is not touched where the machine cannot start anything: that parks at once', async () => {
      deps.runners.local!.submit = () => Promise.reject(new JobNotStarted('local: cannot start python'))
      expect(await failureOf(watch().result)).toMatchObject({ type: 'NeedsAttention', nonRetryable: true, message: 'train: local: cannot start python' })
    })
  })

  describe('a cancelled activity', () => {
    const cancelled = async (details: ConstructorParameters<typeof ActivityCancellationDetails>[0]) => {
      const { env, result } = watch()
      await submissions(1)
      env.cancel('CANCELLED', new ActivityCancellationDetails(details))
      await expect(result).rejects.toThrow()
    }
    test.each([{ cancelRequested: true }, { paused: true }])('%j stops the job', async (details) => {
      await cancelled(details)
      expect(cluster.stopped).toEqual([attempt(1).path])
      expect(await askers(attempt(1))).toEqual([])
    })
    test.each([{ workerShutdown: true }, { timedOut: true }, { notFound: true }, { reset: true }])('%j leaves the job running', async (details) => {
      await cancelled(details)
      expect(cluster.stopped).toEqual([])
      expect(cluster.jobs.get(attempt(1).path)?.state).toBe('running')
      expect(await askers(attempt(1))).toHaveLength(1)
    })
  })

  describe('two runs that ask for the same work', () => {
    test('share one job, and both get it', async () => {
      const [one, two] = [watch({}, 'run-1'), watch({}, 'run-2')]
      await vi.waitFor(async () => expect(await askers(attempt(1))).toHaveLength(2), { timeout: 10_000 })
      // both may submit at once: a job's first act is to claim its start, so that it runs once
      await vi.waitFor(() => expect(cluster.jobs.get(attempt(1).path)?.state).toBe('running'), { timeout: 10_000 })
      await vi.waitFor(() => expect(one.heartbeats.length * two.heartbeats.length).toBeGreaterThan(0), { timeout: 10_000 })
      committed = true
      cluster.end(1, 'done')
      expect(cluster.jobs.size).toBe(1)
      expect(await Promise.all([one.result, two.result])).toEqual([1, 1])
      expect(await claimsOf(deps.store, fingerprint, 0)).toHaveLength(1)
    })
    test('when the other’s job commits and ends between the look for a commit and the claim, nothing is claimed or run again', async () => {
      const { result } = watch({}, 'run-1')
      await submissions(1)
      committed = true
      cluster.end(1, 'done')
      await result
      // the second asker saw no commit when it began, and comes to the claims only now
      expect(await watch({}, 'run-2').result).toBe(1)
      expect(cluster.submitted).toHaveLength(1)
      expect(await claimsOf(deps.store, fingerprint, 0)).toHaveLength(1)
    })
    test('when one is cancelled the job lives on, when the last is too it is stopped', async () => {
      const one = watch({}, 'run-1')
      await submissions(1)
      const two = watch({}, 'run-2')
      await vi.waitFor(async () => expect(await askers(attempt(1))).toHaveLength(2), { timeout: 10_000 })
      one.env.cancel()
      await expect(one.result).rejects.toThrow()
      expect(cluster.stopped).toEqual([])
      two.env.cancel()
      await expect(two.result).rejects.toThrow()
      expect(cluster.stopped).toEqual([attempt(1).path])
    })
  })

  describe('a pause', () => {
    const key = 'stage-1/round-1/train'
    const lines = (run = 'run-1') => ({ run: { workflowId: 'cpt/x', firstRunId: run }, keys: [key] })
    const hasPause = (n: number): boolean => existsSync(join(attempt(n).path, 'pause'))

    test('reaches the running job; its end is no failure, no attempt is spent on it, and after resume the next goes on', async () => {
      const { result } = watch({ request: { globalBatchTokens: 100 } })
      await submissions(1)
      expect(await pauseJobs(deps)(lines())).toEqual({ paused: 1, shared: 0 })
      expect(hasPause(1)).toBe(true)
      cluster.end(1, 'stopped', { type: 'Paused', progressTokens: 800 })
      expect(await failureOf(result)).toMatchObject({ type: 'Paused', nonRetryable: true, message: 'train: paused at step 8, 800 tokens are committed' })
      // an activity that is called all the same starts nothing
      expect(await failureOf(watch().result)).toMatchObject({ type: 'Paused', message: 'train: paused before it began' })
      expect(cluster.submitted).toHaveLength(1)
      await resumeJobs(deps)(lines())
      const again = watch()
      await submissions(2)
      committed = true
      cluster.end(2, 'done')
      expect(await again.result).toBe(2)
    })
    test('taken back before the job has noticed lets it go on', async () => {
      const { result } = watch()
      await submissions(1)
      await pauseJobs(deps)(lines())
      await resumeJobs(deps)(lines())
      expect(hasPause(1)).toBe(false)
      committed = true
      cluster.end(1, 'done')
      expect(await result).toBe(1)
    })
    test('taken back in the moment the job leaves is tried again like any end', async () => {
      const { result } = watch()
      await submissions(1)
      await pauseJobs(deps)(lines())
      await resumeJobs(deps)(lines())
      cluster.end(1, 'stopped', { type: 'Paused' })
      expect(await failureOf(result)).toMatchObject({ type: 'JobEnded', nonRetryable: false })
    })
    test('leaves a job alone that another run wants, until that one is paused too', async () => {
      const [one, two] = [watch({}, 'run-1'), watch({}, 'run-2')]
      await vi.waitFor(() => expect(one.heartbeats.length * two.heartbeats.length).toBeGreaterThan(0), { timeout: 10_000 })
      expect(await pauseJobs(deps)(lines('run-1'))).toEqual({ paused: 0, shared: 1 })
      expect(hasPause(1)).toBe(false)
      expect(await pauseJobs(deps)(lines('run-2'))).toEqual({ paused: 1, shared: 0 })
      expect(hasPause(1)).toBe(true)
      cluster.end(1, 'stopped', { type: 'Paused' })
      expect((await Promise.all([failureOf(one.result), failureOf(two.result)])).map((f) => f.type)).toEqual(['Paused', 'Paused'])
    })
  })

  describe('a paused run whose job another one wanted', () => {
    test('has it leave once that one is cancelled', async () => {
      const [one, two] = [watch({}, 'run-1'), watch({}, 'run-2')]
      await vi.waitFor(() => expect(one.heartbeats.length * two.heartbeats.length).toBeGreaterThan(0), { timeout: 10_000 })
      expect(await pauseJobs(deps)({ run: { workflowId: 'cpt/x', firstRunId: 'run-1' }, keys: ['stage-1/round-1/train'] })).toEqual({ paused: 0, shared: 1 })
      two.env.cancel('CANCELLED', new ActivityCancellationDetails({ cancelRequested: true }))
      await expect(two.result).rejects.toThrow()
      expect(cluster.stopped).toEqual([])
      await vi.waitFor(() => expect(existsSync(join(attempt(1).path, 'pause'))).toBe(true), { timeout: 10_000 })
      cluster.end(1, 'stopped', { type: 'Paused' })
      expect(await failureOf(one.result)).toMatchObject({ type: 'Paused' })
    })
  })

  describe('the clean-up after a stage was left', () => {
    const cleanUp = (run: string, key = 'stage-1/round-1/train') => ensureStopped(deps)({ run: { workflowId: 'cpt/x', firstRunId: run }, key })
    const detached = async (run: string) => {
      const { env, result } = watch({}, run)
      await vi.waitFor(async () => expect(await askers(attempt(1))).toContain(askerOf('cpt/x', run, 'stage-1/round-1/train')), { timeout: 10_000 })
      await submissions(1)
      env.cancel('WORKER_SHUTDOWN', new ActivityCancellationDetails({ workerShutdown: true }))
      await expect(result).rejects.toThrow()
    }
    test('ends a job whose watcher died', async () => {
      await detached('run-1')
      expect(await cleanUp('run-1')).toEqual({ stopped: 1 })
      expect(cluster.stopped).toEqual([attempt(1).path])
      expect(await cleanUp('run-1')).toEqual({ stopped: 0 })
    })
    test('leaves a job that another run asks for, and lines that never had one', async () => {
      await detached('run-1')
      const two = watch({}, 'run-2')
      await vi.waitFor(() => expect(two.heartbeats.length).toBeGreaterThan(0), { timeout: 10_000 })
      expect(await cleanUp('run-1', 'another/line')).toEqual({ stopped: 0 })
      expect(await cleanUp('run-1')).toEqual({ stopped: 0 })
      two.env.cancel('WORKER_SHUTDOWN', new ActivityCancellationDetails({ workerShutdown: true }))
      await expect(two.result).rejects.toThrow()
      expect(await cleanUp('run-2')).toEqual({ stopped: 1 })
    })
  })
})
