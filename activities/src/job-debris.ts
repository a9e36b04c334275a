import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { JobFolder } from './job-runner/job-runner.ts'

/** Removes the half-written status files of an attempt that is over: its folder is its own, and its processes are gone. */
export const sweepDebris = async (job: JobFolder): Promise<void> => {
  const names = await readdir(job.path).catch(() => [])
  await Promise.all(names.filter((n) => n.startsWith('.tmp-')).map((n) => rm(join(job.path, n), { force: true })))
}
