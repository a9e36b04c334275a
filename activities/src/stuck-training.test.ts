import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { ApplicationFailure, type Logger } from '@temporalio/common'
import { MockActivityEnvironment } from '@temporalio/testing'
import { Placement } from '@cpt/contracts/job'
import { stages } from '@cpt/contracts/stages'
import pino from 'pino'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { localDiskStore } from './artifact-store/local-disk.ts'
import { jobFolder } from './claims.ts'
import type { Deps } from './deps.ts'
import { sha256 } from './identity.ts'
import type { JobFolder } from './job-runner/job-runner.ts'
import { localRunner } from './job-runner/local.ts'
import { groupMembers, signalProcess } from './job-runner/process.ts'
import { liveLine } from './live-progress.ts'
import { watchRange } from './watch-range.ts'

const run = promisify(execFile)
const ml = fileURLToPath(new URL('../../ml', import.meta.url))
const python = `${ml}/.venv/bin/python`
/** More than a cold start takes on a busy machine: until the first beat the job is silent. */
const noProgressSeconds = 30
const say = () => undefined
const silent: Logger = { log: say, trace: say, debug: say, info: say, warn: say, error: say }

describe('a training on two processes that stands still', { timeout: 300_000 }, () => {
  let root = ''
  let request: unknown
  let deps: Deps
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'cpt-stuck-training-'))
    const { stdout } = await run(python, [`${ml}/tests/tiny_training.py`, root], { env: { PATH: '/usr/bin:/bin', PYTHONPATH: ml } })
    request = JSON.parse(stdout)
    const roots = { store: join(root, 'store'), files: join(root, 'files') }
    const runner = localRunner({ python, mlDir: ml, env: { PATH: '/usr/bin:/bin' }, warm: null })
    deps = { config: { roots, leaseSeconds: 120 }, store: localDiskStore(roots), workDir: roots.store, runners: { local: runner }, client: { workflow: { getHandle: () => ({ signal: () => Promise.resolve() }) } }, log: pino({ level: 'silent' }) } as unknown as Deps
  }, 300_000)
  afterAll(() => rm(root, { recursive: true, maxRetries: 5 }))

  /** Watches the first attempt at a fingerprint as its activity would, until it is stopped; returns how that failed. */
  const watch = (fingerprint: string): { job: JobFolder; failure: Promise<ApplicationFailure> } => {
    const env = new MockActivityEnvironment({ workflowExecution: { workflowId: 'cpt/x', runId: 'r' } }, { logger: silent })
    const placement = Placement.parse({ noProgressSeconds, processesPerNode: 2, checkpointEverySteps: 2 })
    const failure = env.run(watchRange, deps, {
      stage: stages.train, fingerprint, range: 0, request, parents: [], placement, detach: new AbortController().signal, live: liveLine(deps, 'k'), asker: 'a', key: 'k', decision: 0,
      pending: () => Promise.resolve(null), isCommitted: () => Promise.resolve(false), progress: () => Promise.resolve('nothing'),
    }).then(() => { throw new Error('the training came to its end') }, (e: unknown) => {
      expect(e).toBeInstanceOf(ApplicationFailure)
      return e as ApplicationFailure
    })
    return { job: jobFolder(deps.workDir, fingerprint, 0, 1), failure }
  }
  const logOf = (job: JobFolder) => readFile(join(job.path, 'log.jsonl'), 'utf8')
  const pidsOf = async (job: JobFolder) => (JSON.parse(await readFile(join(job.path, 'ranks.json'), 'utf8')) as { pids: [number, number] }).pids

  test.concurrent('because one process is halted shows where the other waits for it, and leaves with its work saved', async () => {
    const { job, failure } = watch(sha256('one rank is halted'))
    await vi.waitFor(async () => expect(await readFile(join(job.path, 'beat.json'), 'utf8')).toContain('"train"'), { timeout: 200_000, interval: 50 })
    const [first, second] = await pidsOf(job)
    signalProcess(second, 'SIGSTOP')
    expect(await failure).toMatchObject({ type: 'NoProgress', nonRetryable: false, details: [{ failureClass: 'stuck', endClass: 'stopped' }] })
    const log = await logOf(job)
    expect(log).toMatch(/no progress in phase (train|save) for \d+ s/)
    expect(log).toMatch(new RegExp(`rank 0 \\(process ${first}\\) stands here:\n[^]*most recent call first[^]*torch/distributed/[^]*rank 1 \\(process ${second}\\) is halted`))
    expect(await groupMembers(first)).toEqual([])
  })

  test.concurrent('because one of them cannot write its checkpoint is found by the limit of the phase save, with the stack of the saving thread', async () => {
    const fingerprint = sha256('a write blocks')
    const attempt = `${fingerprint.slice(0, 12)}-r0-a1-checkpoints`
    const pipe = join(deps.workDir, 'data', fingerprint.slice(0, 2), fingerprint, attempt, '000-000002', 'model-00001-of-00002.safetensors')
    await mkdir(dirname(pipe), { recursive: true })
    await run('mkfifo', [pipe]) // whoever opens it to write waits for a reader
    const { job, failure } = watch(fingerprint)
    expect(await failure).toMatchObject({ type: 'NoProgress', nonRetryable: false })
    const [first, second] = await pidsOf(job)
    const log = await logOf(job)
    expect(log).toContain(`limit ${noProgressSeconds} s: the stacks`)
    expect(log).toMatch(/no progress in phase save for \d+ s/)
    const ofSecond = log.slice(log.indexOf(`rank 1 (process ${second}) stands here:`))
    expect(ofSecond).toMatch(/most recent call first[^]*tensor_files\.py", line \d+ in write_tensors[^]*saving\.py", line \d+ in _run/)
    expect(await groupMembers(first)).toEqual([])
  })
})
