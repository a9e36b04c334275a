import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { localDiskStore } from '@cpt/activities/artifact-store/local-disk'
import { jobFolder } from '@cpt/activities/claims'
import { sha256 } from '@cpt/activities/identity'
import type { RunnerBench } from '@cpt/activities/job-runner/job-runner.cases'
import type { JobFolder, JobRunner, JobState } from '@cpt/activities/job-runner/job-runner'
import { slurmRunner } from '@cpt/activities/job-runner/slurm'
import { listJobs, slurmCommand, type Row, type SlurmCommand } from '@cpt/activities/job-runner/slurm-commands'
import { SlurmSettings } from '@cpt/activities/job-runner/slurm-settings'
import { Placement, type JobRequest } from '@cpt/contracts/job'
import type { z } from 'zod'
import type { Slurm } from '../../infra/slurm/start.mjs'
import { until } from '../harness/until.ts'

const ml = fileURLToPath(new URL('../../ml', import.meta.url))
/** The stage `case`, and what it shares with the cases of the local runner. */
const caseStage = [new URL('case', import.meta.url), new URL('../../activities/src/job-runner', import.meta.url)].map((folder) => fileURLToPath(folder)).join(':')
const python = join(ml, '.venv/bin/python')

/** Compressed: a scheduler is asked twice a second, and files of a node are seen here at once. */
const quick = { pools: { default: {} }, pollSeconds: 0.5, coalesceSeconds: 0.3, vanishedAfterSeconds: 8, visibleWithinSeconds: 1, graceSeconds: 30 }

export interface SlurmBench extends RunnerBench {
  root: string
  command: SlurmCommand
  /** A runner of its own, as another worker would have it. */
  runnerWith: (over: { settings?: z.input<typeof SlurmSettings> | Partial<z.input<typeof SlurmSettings>>; run?: SlurmCommand; env?: Record<string, string> }) => JobRunner
  makeJob: (request: { do: string; [field: string]: unknown }, over?: { placement?: z.input<typeof Placement>; range?: number; attempt?: number; fingerprint?: string; units?: JobRequest['units'] }) => Promise<{ job: JobFolder; request: JobRequest }>
  /** From now on nobody but the scheduler sees the job end: `kill` ends its batch script too. */
  orphan: (job: JobFolder) => void
  /** All that the scheduler remembers of this bench's jobs. */
  rows: (job: JobFolder) => Promise<Row[]>
  /** Polls the runner until the job is in such a state. */
  reach: <S extends JobState['state']>(job: JobFolder, state: S, runner?: JobRunner, deadlineSeconds?: number) => Promise<Extract<JobState, { state: S }>>
}

/** A job runner on a real Slurm, and what the cases of all runners need around it. */
export const openSlurmBench = async (slurm: Slurm, folderName = ''): Promise<SlurmBench> => {
  const parent = await mkdtemp(join(tmpdir(), 'cpt-slurm-jobs-'))
  const root = join(parent, folderName)
  await mkdir(root, { recursive: true })
  const store = localDiskStore({ store: root })
  const command = slurmCommand({ env: slurm.env })
  const runnerWith: SlurmBench['runnerWith'] = ({ settings = {}, run = command, env = {} }) =>
    slurmRunner({ settings: SlurmSettings.parse({ ...quick, ...settings }), run, python, mlDir: ml, env: { PATH: '/usr/bin:/bin', PYTHONPATH: caseStage, PYTHONDONTWRITEBYTECODE: '1', ...env } })
  const runner = runnerWith({})
  const jobs: JobFolder[] = []
  const orphaned = new Set<string>()

  const commands = async (): Promise<{ pid: number; command: string }[]> => {
    const pids = (await readdir('/proc')).filter((e) => /^\d+$/.test(e))
    return Promise.all(pids.map(async (pid) => ({ pid: Number(pid), command: await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '') })))
  }
  /** Which of this cluster's jobs a process belongs to, whatever group or session it is in. */
  const slurmJobOf = async (pid: number): Promise<string | null> => {
    const environment = (await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')).split('\0')
    return environment.includes(`SLURM_CONF=${slurm.conf}`) ? (environment.find((e) => e.startsWith('SLURM_JOB_ID=')) ?? null) : null
  }
  /** The job's processes and whatever they started; the batch script is told apart. */
  const family = async (job: JobFolder): Promise<{ pid: number; isScript: boolean }[]> => {
    const all = await Promise.all((await commands()).map(async (c) => ({ ...c, slurmJob: await slurmJobOf(c.pid) })))
    const own = new Set(all.filter((c) => c.command.includes(job.path)).map((c) => c.slurmJob))
    return all.filter((c) => c.command !== '' && c.slurmJob !== null && own.has(c.slurmJob)).map((c) => ({ pid: c.pid, isScript: c.command.startsWith('/bin/bash\0') }))
  }
  const processes = async (job: JobFolder): Promise<number[]> => (await family(job)).filter((p) => !p.isScript).map((p) => p.pid)
  const kill = async (job: JobFolder): Promise<void> => {
    // whoever is orphaned has nobody left to record its end: its batch script goes with it
    for (const { pid, isScript } of (await family(job)).sort((a, b) => Number(b.isScript) - Number(a.isScript))) {
      if (isScript && !orphaned.has(job.path)) continue
      try {
        process.kill(pid, 'SIGKILL')
      } catch (e) {
        if ((e as NodeJS.ErrnoException).code !== 'ESRCH') throw e
      }
    }
  }
  const makeJob: SlurmBench['makeJob'] = async (what, { placement = {}, range = 0, attempt = 1, fingerprint = sha256(`${root} ${what.do} ${jobs.length}`), units = null } = {}) => {
    const job = jobFolder(root, fingerprint, range, attempt)
    const request: JobRequest = {
      format: 'cpt-job/1', stage: 'case', version: 1, fingerprint, range, attempt, token: `${fingerprint.slice(0, 12)}-r${range}-a${attempt}`, roots: { store: root }, request: what, units, parents: [],
      placement: Placement.parse({ runner: 'slurm', ...placement }), leaseSeconds: 600,
    }
    await mkdir(job.path, { recursive: true })
    await writeFile(join(job.path, 'request.json'), JSON.stringify(request))
    jobs.push(job)
    return { job, request }
  }
  const rows = async (job: JobFolder): Promise<Row[]> => {
    const all = await listJobs(command)
    if (!Array.isArray(all)) throw new Error(all.failed)
    return all.filter((r) => r.name.startsWith(`cpt-${job.fingerprint.slice(0, 16)}-`))
  }
  return {
    root, command, runner, runnerWith, makeJob, processes, kill, rows,
    successor: () => runnerWith({}),
    orphan: (job) => void orphaned.add(job.path),
    newJob: async (does, over = {}) => {
      const made = await makeJob({ do: does }, over)
      const request = { ...made.request, token: 'token-1' }
      await writeFile(join(made.job.path, 'request.json'), JSON.stringify(request))
      return { job: made.job, request }
    },
    submitFromDeadWorker: async (job, request) => {
      orphaned.add(job.path)
      await runnerWith({}).submit(job, request)
    },
    timesRun: async (job) => (await readdir(job.path)).filter((n) => n.startsWith('ran-')).length,
    committed: async (job) => (await store.record(job.fingerprint))?.result ?? null,
    reach: (job, state, from = runner, deadlineSeconds = 60) =>
      until(`${job.path} to be ${state}`, async () => {
        const seen = await from.look(job)
        if (seen.state === state) return seen as Extract<JobState, { state: typeof state }>
        if (seen.state === 'ended') throw new Error(`${job.path} has ended: ${JSON.stringify(seen.end)}\n${await readFile(join(job.path, 'log.jsonl'), 'utf8').catch(() => '')}`)
        return null
      }, deadlineSeconds),
    close: async () => {
      await Promise.all(jobs.map((job) => runner.stop(job, 0)))
      await rm(parent, { recursive: true, maxRetries: 5 })
    },
  }
}
