import { createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { JobRequest } from '@cpt/contracts/job'
import { replaceFile } from '../replace-file.ts'
import { wordsOf, type SlurmCommand } from './slurm-commands.ts'
import type { SlurmPool, SlurmSettings } from './slurm-settings.ts'
import { meaningOf } from './slurm-states.ts'
import { arrayComment, arrayName, commentOf, jobName, newNonce, writeSubmission, type Submission } from './slurm-submissions.ts'
import { JobNotStarted, type JobFolder } from './job-runner.ts'

export interface SubmitContext {
  run: SlurmCommand
  settings: SlurmSettings
  python: string
  mlDir: string
  /** The whole environment of a job. */
  env: Record<string, string>
  cluster: string
}

export interface Submittable {
  job: JobFolder
  request: JobRequest
}

/** What a submission came to: `later` carries the scheduler's reason, `unsure` what went wrong on the way. */
export type Outcome = { is: 'submitted' } | { is: 'later'; why: string } | { is: 'unsure'; why: string }

/** Hands jobs of one stage and placement to Slurm, several as one array. Throws JobNotStarted when Slurm refuses for good. */
export const submitJobs = async (context: SubmitContext, jobs: Submittable[]): Promise<Outcome> => {
  const [first] = jobs
  if (first === undefined) return { is: 'submitted' }
  const nonce = newNonce()
  const isArray = jobs.length > 1
  const name = isArray ? arrayName(first.job, nonce) : jobName(first.job)
  const comment = isArray ? arrayComment(first.job, nonce) : commentOf(first.job, nonce)
  const record = (state: Submission['state'], jobId: string | null): Promise<unknown> =>
    Promise.all(jobs.map(({ job }, i) => writeSubmission(job, { nonce, name, comment, task: isArray ? i : null, state, cluster: context.cluster, jobId, submitTime: null })))

  const place = isArray ? await writeList(first.job, jobs, nonce) : { list: first.job.path, output: literally(join(first.job.path, 'log.jsonl')) }
  const args = [
    ...optionsOf(context.settings, first.request), `--job-name=${name}`, `--comment=${comment}`, ...(isArray ? [`--array=0-${jobs.length - 1}`] : []),
    `--output=${place.output}`, `--chdir=${context.mlDir}`, join(context.mlDir, 'cpt_ml', 'slurm_job.sh'), await writeEnvironment(first.job, context.env), context.python, context.mlDir,
    String(first.request.placement.nodes), String(first.request.placement.processesPerNode), first.request.stage, place.list,
  ]
  // the intent is on disk before anyone is asked: whoever comes after a crash looks for it
  await record('intended', null)
  const answer = await context.run('sbatch', args)
  const jobId = /^(\d+)(;|\s|$)/.exec(answer.stdout.trim())?.[1]
  if (answer.code === 0 && jobId !== undefined) {
    await record('submitted', jobId)
    return { is: 'submitted' }
  }
  const why = wordsOf(answer)
  const meaning = meaningOf(why)
  if (meaning === 'unsure') return { is: 'unsure', why }
  await record('refused', null)
  if (meaning === 'later') return { is: 'later', why }
  throw new JobNotStarted(`Slurm refuses the job: ${why}; mend the pool in CPT_SLURM or patch the placement`)
}

/** In a name of an output file % and backslash mean something to Slurm. */
const literally = (path: string): string => {
  if (path.includes('\\')) throw new JobNotStarted(`Slurm cannot write to a folder with a backslash in its name: ${path}`)
  return path.replaceAll('%', '%%')
}

/** Folders, each ended by NUL, found by task number. */
const writeList = async (first: JobFolder, jobs: Submittable[], nonce: string): Promise<{ list: string; output: string }> => {
  const folder = join(first.path, '..', '..', `array-${nonce}`)
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, 'folders'), jobs.map(({ job }) => `${job.path}\0`).join(''))
  return { list: join(folder, 'folders'), output: `${literally(folder)}/task-%a.log` }
}

/** One file for all jobs of an environment, readable by its owner alone: it may hold the keys of a store. */
const writeEnvironment = async (job: JobFolder, env: Record<string, string>): Promise<string> => {
  const text = Object.entries(env).sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, value]) => `${name}=${value}\0`).join('')
  const folder = join(job.path.slice(0, job.path.lastIndexOf(join('jobs', job.fingerprint.slice(0, 2)))), 'slurm')
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const path = join(folder, `environment-${createHash('sha256').update(text).digest('hex').slice(0, 16)}`)
  await replaceFile(path, text, { mode: 0o600 })
  return path
}

/** What the scheduler is told of a job, from its placement and the pool of the worker's configuration. */
export const optionsOf = (settings: SlurmSettings, { placement }: Pick<JobRequest, 'placement'>): string[] => {
  const name = placement.pool ?? 'default'
  const pool: SlurmPool | undefined = settings.pools[name]
  if (pool === undefined) throw new JobNotStarted(`placement.pool is ${name}, but CPT_SLURM knows ${Object.keys(settings.pools).join(', ')}`)
  const seconds = Math.min(placement.timeLimitSeconds, pool.maxSeconds ?? Number.POSITIVE_INFINITY)
  // Slurm counts limits in minutes
  const minutes = Math.max(1, Math.ceil(seconds / 60))
  const grace = Math.min(settings.graceSeconds, minutes * 30)
  const exclude = [...new Set([...pool.excludeNodes, ...placement.excludeNodes])]
  const memory = placement.memoryMiB ?? pool.memoryMiB
  const given = {
    partition: pool.partition, account: pool.account, qos: pool.qos, constraint: pool.constraint, reservation: pool.reservation,
    exclude: exclude.length > 0 ? exclude.join(',') : undefined, mem: memory === undefined ? undefined : `${memory}M`,
    'gpus-per-node': placement.gpusPerNode === 0 ? undefined : `${pool.gpuType === undefined ? '' : `${pool.gpuType}:`}${placement.gpusPerNode}`,
    nodes: placement.nodes, 'ntasks-per-node': 1, 'cpus-per-task': placement.threads * placement.processesPerNode,
    time: minutes, signal: `B:USR2@${grace}`, dependency: 'singleton',
    // of the worker's environment nothing, and Slurm itself tries nothing again
    export: 'NIL', 'open-mode': 'append', input: '/dev/null',
  }
  return ['--parsable', '--no-requeue', ...Object.entries(given).flatMap(([option, value]) => (value === undefined ? [] : [`--${option}=${value}`]))]
}
