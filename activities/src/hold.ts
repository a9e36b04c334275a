import { mkdir, rm, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ApplicationFailure } from '@temporalio/common'
import { pausedType } from '@cpt/contracts/activities'
import type { EndRecord } from '@cpt/contracts/job'
import { z } from 'zod'
import { isRenewedBy } from './claims.ts'
import type { JobFolder } from './job-runner/job-runner.ts'

/** In the folder of an asker: a person wants its work held. In the folder of a job: leave at the next commit. */
const mark = 'pause'
const markOf = (workDir: string, asker: string): string => join(workDir, 'askers', asker, mark)

export const holdAsker = async (workDir: string, asker: string): Promise<void> => {
  await mkdir(join(workDir, 'askers', asker), { recursive: true })
  await writeFile(markOf(workDir, asker), '')
}
export const releaseAsker = (workDir: string, asker: string): Promise<void> => rm(markOf(workDir, asker), { force: true })
export const isHeld = (workDir: string, asker: string): boolean => existsSync(markOf(workDir, asker))

export const holdJob = (job: JobFolder): Promise<void> => writeFile(join(job.path, mark), '')
export const releaseJob = (job: JobFolder): Promise<void> => rm(join(job.path, mark), { force: true })

/** Whether somebody else who is not held renews the job's lease. */
export const isWantedByOthers = (workDir: string, job: JobFolder, asker: string): Promise<boolean> => isRenewedBy(job, (name) => name !== asker && !isHeld(workDir, name))

const askAgainMs = 5_000

/**
 * For the watcher of a running job: a line may be held while another one wants the same job, and that one may go later.
 * Each call looks now and then, beside the caller, and tells the job to leave once nobody but held lines wants it.
 */
export const leavesWhenUnwanted = (workDir: string, job: JobFolder, asker: string): (() => void) => {
  let dueMs = 0
  const look = async (): Promise<void> => {
    if (await isWantedByOthers(workDir, job, asker)) return
    await holdJob(job)
    // one who resumes releases the line before the job
    if (!isHeld(workDir, asker)) await releaseJob(job)
  }
  return () => {
    if (!isHeld(workDir, asker) || performance.now() < dueMs || existsSync(join(job.path, mark))) return
    dueMs = performance.now() + askAgainMs
    look().catch(() => undefined)
  }
}

export const isPausedEnd = (end: EndRecord): boolean => end.endClass === 'stopped' && end.type === pausedType

/** Ends the activity of a line that a person has paused; the workflow waits for `resume` and calls it again. */
export const paused = (message: string): ApplicationFailure => ApplicationFailure.nonRetryable(message, pausedType)

const Batched = z.object({ globalBatchTokens: z.number() })

/** Where a job left: a beat may be older than that, so it comes from what is committed. */
export const pausedAt = (request: unknown, end: EndRecord, pending: readonly unknown[] | null): string => {
  if (pending !== null) return `paused with ${pending.length} ${pending.length === 1 ? 'shard' : 'shards'} to go`
  const batch = Batched.safeParse(request).data
  return batch === undefined ? 'paused at a commit' : `paused at step ${end.progressTokens / batch.globalBatchTokens}, ${end.progressTokens} tokens are committed`
}
