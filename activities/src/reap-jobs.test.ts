import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { WorkflowNotFoundError, type Client } from '@temporalio/client'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { nameAsker } from './askers.ts'
import { askerOf, enterAsker, jobFolder, renewLease } from './claims.ts'
import { sha256 } from './identity.ts'
import type { JobFolder, JobState } from './job-runner/job-runner.ts'
import { reapJobs } from './reap-jobs.ts'

let workDir = ''
beforeEach(async () => {
  workDir = await mkdtemp(join(tmpdir(), 'cpt-reap-'))
})
afterEach(() => rm(workDir, { recursive: true }))

/** A server that knows these workflows: id → status and first run. */
const serverWith = (workflows: Record<string, { status: string; firstRunId?: string }>, namespaceId = 'ns-1'): Client =>
  ({
    options: { namespace: 'cpt' },
    workflowService: { describeNamespace: () => Promise.resolve({ namespaceInfo: { id: namespaceId } }) },
    workflow: {
      getHandle: (id: string) => ({
        describe: () => {
          const found = workflows[id]
          if (found === undefined) return Promise.reject(new WorkflowNotFoundError('gone', id, undefined))
          if (found.status === 'unreachable') return Promise.reject(new Error('14 UNAVAILABLE'))
          return Promise.resolve({ status: { name: found.status }, raw: { workflowExecutionInfo: { firstRunId: found.firstRunId ?? 'run-1' } } })
        },
      }),
    },
  }) as unknown as Client

const stopped: string[] = []
beforeEach(() => void stopped.splice(0))
const runnerSaying = (state: JobState) => ({ local: { name: 'local' as const, look: () => Promise.resolve(state), submit: () => Promise.resolve(), dumpStacks: () => Promise.resolve(), stop: (job: JobFolder) => Promise.resolve(void stopped.push(job.path)) } })
const running: JobState = { state: 'running', beat: null }

const asked = async (workflowId: string, { job = 'a', namespaceId = 'ns-1', named = true } = {}): Promise<JobFolder> => {
  const folder = jobFolder(workDir, sha256(job), 0, 1)
  const asker = askerOf(workflowId, 'run-1', 'train')
  if (named) await nameAsker({ workDir, client: serverWith({}, namespaceId) }, { workflowId, firstRunId: 'run-1' }, 'train')
  await mkdir(folder.path, { recursive: true })
  await enterAsker(workDir, 'local', folder, asker)
  await renewLease(folder, asker, 1)
  return folder
}
const reap = (client: Client, state: JobState = running) => reapJobs({ workDir, client, runners: runnerSaying(state) })()

test.each(['TERMINATED', 'COMPLETED', 'FAILED', 'CANCELLED', 'TIMED_OUT'])('a job whose only run is %s is withdrawn and stopped, and the report says why', async (status) => {
  const job = await asked('cpt/x')
  const report = await reap(serverWith({ 'cpt/x': { status } }))
  expect(stopped).toEqual([job.path])
  expect(report).toEqual({ looked: 1, stopped: [{ job: job.path.slice(workDir.length + 1), askedBy: ['cpt/x: train'], why: `cpt/x is ${status.toLowerCase()}` }], left: [] })
  expect(await readdir(join(job.path, 'askers'))).toEqual([])
})

test.each(['RUNNING', 'PAUSED', 'CONTINUED_AS_NEW'])('the job of a run that is %s is never touched', async (status) => {
  await asked('cpt/x')
  expect(await reap(serverWith({ 'cpt/x': { status } }))).toEqual({ looked: 1, stopped: [], left: [] })
  expect(stopped).toEqual([])
})

test('a job that a closed and a living run asked for is not touched', async () => {
  const job = await asked('cpt/x')
  await asked('cpt/y')
  expect((await reap(serverWith({ 'cpt/x': { status: 'TERMINATED' }, 'cpt/y': { status: 'RUNNING' } }))).stopped).toEqual([])
  expect(await readdir(join(job.path, 'askers'))).toHaveLength(2)
})

test('a run that the server does not know, or whose id another run has now, is closed', async () => {
  await asked('cpt/x', { job: 'a' })
  await asked('cpt/y', { job: 'b' })
  const { stopped: reaped } = await reap(serverWith({ 'cpt/y': { status: 'RUNNING', firstRunId: 'run-2' } }))
  expect(reaped.map((s) => s.why).sort()).toEqual(['cpt/x is not known to the server', 'cpt/y is over, another run has its id'])
})

test('a server that cannot be asked is no reason to stop anything', async () => {
  await asked('cpt/x')
  await expect(reap(serverWith({ 'cpt/x': { status: 'unreachable' } }))).rejects.toThrow('UNAVAILABLE')
  expect(stopped).toEqual([])
})

test('jobs of another server and of askers without a name are left alone, and the report says so', async () => {
  await asked('cpt/x', { job: 'a', namespaceId: 'ns-2' })
  await asked('cpt/y', { job: 'b', named: false })
  const report = await reap(serverWith({}))
  expect(report.stopped).toEqual([])
  expect(report.left.map((l) => l.why)).toEqual(['who asked for it is not on record, or belongs to another server', 'who asked for it is not on record, or belongs to another server'])
})

test('a job that cannot be asked after is left, one proven gone gets its end record', async () => {
  const job = await asked('cpt/x')
  const closed = serverWith({ 'cpt/x': { status: 'TERMINATED' } })
  expect((await reap(closed, { state: 'unknown', why: 'the scheduler does not answer' })).left.map((l) => l.why)).toEqual(['it cannot be asked after: the scheduler does not answer'])
  expect((await reap(closed, { state: 'gone', end: { endClass: 'killed', message: 'it is gone', exitCode: null, signal: null } })).stopped).toHaveLength(1)
  expect(stopped).toEqual([])
  expect(await readdir(job.path)).toContain('end.json')
  expect(await reap(closed)).toEqual({ looked: 0, stopped: [], left: [] })
})
