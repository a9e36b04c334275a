import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { z } from 'zod'
import { sha256 } from '../identity.ts'
import { replaceFile } from '../replace-file.ts'
import type { Row } from './slurm-commands.ts'
import type { JobFolder } from './job-runner.ts'

/**
 * One try to hand an attempt to Slurm, on disk before sbatch is called: `submissions/<nonce>.json` in the job's folder.
 * `intended`: whether Slurm has it is not known. `submitted`: Slurm said so. `refused`: it never took it. `lost`: it
 * answered twice, long after, that it knows no such job.
 */
export const Submission = z.object({
  nonce: z.string(),
  name: z.string(),
  comment: z.string(),
  task: z.int().nullable(),
  state: z.enum(['intended', 'submitted', 'refused', 'lost']),
  cluster: z.string(),
  /** SLURM_JOB_ID once it is known; for a task of an array the array's. */
  jobId: z.string().nullable(),
  /** By the scheduler's clock, once the job was listed. */
  submitTime: z.string().nullable(),
})
export type Submission = z.infer<typeof Submission>

const folderOf = (job: JobFolder): string => join(job.path, 'submissions')

export const submissionsOf = async (job: JobFolder): Promise<Submission[]> => {
  const names = (await readdir(folderOf(job)).catch(() => [])).filter((n) => n.endsWith('.json'))
  const read = await Promise.all(names.map(async (n) => Submission.safeParse(JSON.parse(await readFile(join(folderOf(job), n), 'utf8').catch(() => 'null'))).data))
  return read.flatMap((s) => (s === undefined ? [] : [s]))
}

export const writeSubmission = async (job: JobFolder, submission: Submission): Promise<void> => {
  await mkdir(folderOf(job), { recursive: true })
  await replaceFile(join(folderOf(job), `${submission.nonce}.json`), JSON.stringify(submission))
}

export const newNonce = (): string => randomBytes(8).toString('hex')

/** Two work folders may hold the same fingerprints, and one Slurm serves both. */
const placeOf = (job: JobFolder): string => sha256(job.path.slice(0, job.path.lastIndexOf(job.fingerprint))).slice(0, 8)

/** The job's name: its work, range and place. One job of a name runs at a time (singleton). */
export const jobName = (job: JobFolder): string => `cpt-${job.fingerprint.slice(0, 16)}-r${job.range}-${placeOf(job)}`
export const arrayName = (job: JobFolder, nonce: string): string => `cpt-${job.fingerprint.slice(0, 16)}-${placeOf(job)}-array-${nonce}`

/** The attempt stands in the comment, and with it a number that no other submission has. */
export const commentOf = (job: JobFolder, nonce: string): string => `${commentPrefix(job)}${nonce}`
export const arrayComment = (job: JobFolder, nonce: string): string => `cpt/${job.fingerprint.slice(0, 16)}/array/${nonce}`
const commentPrefix = (job: JobFolder): string => `cpt/${job.fingerprint.slice(0, 16)}/r${job.range}/a${basename(job.path)}/`

/** Which attempt of its range a listed job is; null for an array, which names many, and for jobs that are not ours. */
export const attemptOf = ({ comment }: Row): number | null => {
  const found = /^cpt\/[0-9a-f]{16}\/r\d+\/a(\d+)\//.exec(comment)
  return found === null ? null : Number(found[1])
}

/** Whether this listed job is that submission: by comment, which is unique, never by a number, which is given out again. */
export const isOf = (row: Row, submission: Submission): boolean =>
  row.comment === submission.comment && row.name === submission.name && (submission.task === null || row.task === submission.task)

/** A listed job of this attempt that no submission on disk tells of. */
export const strayOf = (rows: Row[], job: JobFolder, cluster: string): Submission | null => {
  const row = rows.find((r) => r.name === jobName(job) && r.comment.startsWith(commentPrefix(job)))
  if (row === undefined) return null
  return { nonce: row.comment.slice(commentPrefix(job).length), name: row.name, comment: row.comment, task: null, state: 'submitted', cluster, jobId: row.id, submitTime: row.submitTime }
}
