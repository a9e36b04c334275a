import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ArtifactStore } from '../artifact-store/artifact-store.ts'
import { jobsUnder } from './inventory.ts'
import { markAll, noMarks, type Marks } from './marks.ts'

/**
 * What attempts without an end record hold: their fingerprint, and all that their requests name. An attempt counts while
 * anything of it changed within `windowMs`: a living job raises its pulse, its watcher the lease, and a claim is the
 * beginning of an attempt.
 */
export const liveJobs = async (store: Pick<ArtifactStore, 'entries'>, workDir: string, windowMs: number, nowMs: number): Promise<Marks> => {
  const marks = noMarks()
  const seen = new Set<string>()
  for (const [fingerprint, jobs] of await jobsUnder(workDir)) {
    for (const job of jobs) {
      seen.add(`${fingerprint}/${job.range}/${job.attempt}`)
      if (job.isOver || nowMs - job.changedAtMs > windowMs) continue
      marks.fingerprints.add(fingerprint)
      markAll(marks, await readFile(join(job.path, 'request.json'), 'utf8').catch(() => ''))
    }
  }
  for (const claim of await store.entries('claims/')) {
    const [, , fingerprint = '', range = '', name = ''] = claim.key.split('/')
    if (!seen.has(`${fingerprint}/${range}/${Number.parseInt(name, 10)}`) && nowMs - claim.changedAtMs <= windowMs) marks.fingerprints.add(fingerprint)
  }
  return marks
}
