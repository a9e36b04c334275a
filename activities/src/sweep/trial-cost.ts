import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { ControlActivities } from '@cpt/contracts/activities'
import { askerOf, claimsOf, jobFolder, jobsOfAsker } from '../claims.ts'
import type { Deps } from '../deps.ts'
import type { JobFolder } from '../job-runner/job-runner.ts'
import { readEnd } from '../job-runner/job-files.ts'

/**
 * Seconds of all jobs that a line of a run had started for itself, failed and stopped ones too, and of the work that
 * it came to, whoever did that.
 */
export const trialCost =
  ({ store, workDir }: Pick<Deps, 'store' | 'workDir'>): ControlActivities['trialCost'] =>
  async ({ run, key, fingerprint }) => {
    const asker = askerOf(run.workflowId, run.firstRunId, key)
    const ranges = new Map((await jobsOfAsker(workDir, asker)).map(({ job }) => [`${job.fingerprint} ${job.range}`, job]))
    const attempts = await Promise.all([...ranges.values()].map(async (job) =>
      (await claimsOf(store, job.fingerprint, job.range)).flatMap((claim, i) => (claim.workflow === asker ? [jobFolder(workDir, job.fingerprint, job.range, i + 1)] : []))))
    const seconds = await Promise.all(attempts.flat().map(secondsOf))
    const record = fingerprint === null ? null : await store.record(fingerprint)
    return { spentSeconds: seconds.reduce((a, b) => a + b, 0), workSeconds: record?.wallSeconds ?? 0 }
  }

/** What a job says it took; of one that was killed, the time from its start to its last beat. */
const secondsOf = async (job: JobFolder): Promise<number> => {
  const end = await readEnd(job)
  if (end !== null && end.wallSeconds > 0) return end.wallSeconds
  const [started, beat] = await Promise.all(['started.json', 'beat.json'].map((name) => stat(join(job.path, name)).then((s) => s.mtimeMs, () => null)))
  return started == null || beat == null ? 0 : Math.max(0, beat - started) / 1000
}
