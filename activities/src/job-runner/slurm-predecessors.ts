import { basename, dirname, join } from 'node:path'
import { readEnd } from './job-files.ts'
import type { JobFolder } from './job-runner.ts'
import type { Row } from './slurm-commands.ts'
import { phaseOf } from './slurm-states.ts'
import { attemptOf, jobName } from './slurm-submissions.ts'

/**
 * Jobs of earlier attempts of this range that the scheduler takes to be running, though their end is on record: it
 * crashed before it had saved that they ended. Singleton holds the next attempt up until a node is asked about them,
 * which takes minutes.
 */
export const endedPredecessors = async (job: JobFolder, rows: readonly Row[]): Promise<Row[]> => {
  const earlier = rows.filter((r) => r.name === jobName(job) && phaseOf(r.state) === 'running' && (attemptOf(r) ?? Infinity) < Number(basename(job.path)))
  const ended = await Promise.all(earlier.map(async (r) => (await readEnd({ ...job, path: join(dirname(job.path), String(attemptOf(r))) })) !== null))
  return earlier.filter((_, i) => ended[i])
}
