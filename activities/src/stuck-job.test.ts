import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ApplicationFailure, type Logger } from '@temporalio/common'
import { MockActivityEnvironment } from '@temporalio/testing'
import type { FailureEvidence, FailureType } from '@cpt/contracts/failures'
import { Placement } from '@cpt/contracts/job'
import { stages } from '@cpt/contracts/stages'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { localDiskStore } from './artifact-store/local-disk.ts'
import { jobFolder } from './claims.ts'
import type { Deps } from './deps.ts'
import { sha256 } from './identity.ts'
import { localRunner } from './job-runner/local.ts'
import { signalProcess, Started } from './job-runner/process.ts'
import { liveLine } from './live-progress.ts'
import { watchRange } from './watch-range.ts'

const ml = fileURLToPath(new URL('../../ml', import.meta.url))
const caseJob = fileURLToPath(new URL('job-runner/case_job.py', import.meta.url))
const say = () => undefined
const silent: Logger = { log: say, trace: say, debug: say, info: say, warn: say, error: say }
const fingerprint = sha256('a job that stands still')

describe('a real job that stands still', { timeout: 120_000 }, () => {
  let root = ''
  let deps: Deps
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'cpt-stuck-'))
    const python = join(root, 'python')
    await writeFile(python, `#!/bin/sh\nexec ${ml}/.venv/bin/python ${caseJob} "$@"\n`)
    await chmod(python, 0o700)
    const runner = localRunner({ python, mlDir: ml, env: { PATH: '/usr/bin:/bin', PYTHONPATH: ml }, warm: null })
    deps = { config: { roots: { store: root }, leaseSeconds: 120 }, store: localDiskStore({ store: root }), workDir: root, runners: { local: runner }, client: { workflow: { getHandle: () => ({ signal: () => Promise.resolve() }) } }, log: pino({ level: 'silent' }) } as unknown as Deps
  })
  afterEach(() => rm(root, { recursive: true, maxRetries: 5 }))

  const attemptOf = (n: number) => jobFolder(root, fingerprint, 0, n)
  /** One activity attempt; returns the failure that it ends with. */
  const watch = async (does: string): Promise<ApplicationFailure> => {
    const env = new MockActivityEnvironment({ workflowExecution: { workflowId: 'cpt/x', runId: 'r' } }, { logger: silent })
    // the stand-in job calls itself `case`; nothing else of a stage is looked at here
    const stage = { ...stages.train, name: 'case' } as unknown as typeof stages.train
    const failure: unknown = await env.run(watchRange, deps, {
      stage, fingerprint, range: 0, request: { do: does }, parents: [], placement: Placement.parse({ noProgressSeconds: 6 }), detach: new AbortController().signal, live: liveLine(deps, 'k'), asker: 'a', key: 'k', decision: 0,
      pending: () => Promise.resolve(null), isCommitted: () => Promise.resolve(false), progress: () => Promise.resolve('nothing'),
    }).then(() => null, (e: unknown) => e)
    expect(failure).toBeInstanceOf(ApplicationFailure)
    return failure as ApplicationFailure
  }

  test('shows where it stands before it is stopped', async () => {
    const failure = await watch('hang')
    expect(failure).toMatchObject({ type: 'NoProgress', nonRetryable: false })
    expect(await readFile(join(attemptOf(1).path, 'log.jsonl'), 'utf8')).toMatch(/no progress in phase waiting for \d+ s, limit 6 s[^]*most recent call first[^]*case_job\.py/)
    expect(failure.details?.[0] as FailureEvidence).toMatchObject({ failureClass: 'stuck', endClass: 'stopped' })
  })

  test('because it was halted parks after three times without progress, and no process is left', async () => {
    const groups: number[] = []
    for (const n of [1, 2, 3]) {
      const watching = watch('hang')
      const started = await vi.waitFor(async () => {
        const found = Started.parse(JSON.parse(await readFile(join(attemptOf(n).path, 'started.json'), 'utf8')))
        expect(await readFile(join(attemptOf(n).path, 'beat.json'), 'utf8')).toContain('waiting')
        return found
      }, { timeout: 30_000, interval: 20 })
      signalProcess(-started.pid, 'SIGSTOP')
      groups.push(started.pid)
      expect(await watching).toMatchObject({ type: 'NoProgress', nonRetryable: false })
      expect(await readFile(join(attemptOf(n).path, 'log.jsonl'), 'utf8')).toContain('the process is halted')
    }
    expect(await watch('hang')).toMatchObject({ type: 'NeedsAttention' satisfies FailureType, nonRetryable: true, message: expect.stringContaining('3 attempts in a row') })
    for (const pid of groups) expect(() => process.kill(-pid, 0)).toThrow('ESRCH')
  })
})
