import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isAlive } from '@cpt/activities/job-runner/process'
import { checkpointsOf, claimsIn, commitsOf, jobsIn, type JobEntry } from '../harness/store.ts'
import { violation, type Violation } from './checker.ts'
import type { Stand } from './stand.ts'

/** Looks at a run while it goes on, for what its end no longer shows. */
export interface Watcher {
  look: () => Promise<void>
  violations: () => Violation[]
}

const rangeOf = (job: JobEntry): string => job.folder.split('/').slice(-3, -1).join('/')

/**
 * I4 while it can be broken: attempts of one range that work at once, a record published by an attempt whose successor
 * was claimed before, a record of an attempt that nobody claimed, an end record that changes.
 */
export const openWatcher = ({ system: { storeDir }, reference }: Stand): Watcher => {
  const found = new Set<string>()
  const ends = new Map<string, string>()

  const overlaps = async (jobs: JobEntry[]): Promise<void> => {
    const alive = (await Promise.all(jobs.map(async (j) => (j.started !== null && (await isAlive(j.started)) ? [j] : [])))).flat()
    // one that has written its end may still be leaving
    for (const a of alive.filter((j) => j.end === null)) {
      for (const b of alive) if (rangeOf(a) === rangeOf(b) && b.attempt > a.attempt) found.add(`attempts ${a.attempt} and ${b.attempt} of ${rangeOf(a).slice(0, 12)} worked at once`)
    }
  }

  const rewrittenEnds = async (jobs: JobEntry[]): Promise<void> => {
    for (const job of jobs.filter((j) => j.end !== null)) {
      const text = await readFile(join(job.folder, 'end.json'), 'utf8').catch(() => null)
      if (text === null) continue
      const before = ends.get(job.folder)
      ends.set(job.folder, text)
      if (before !== undefined && before !== text) found.add(`the end record of ${rangeOf(job).slice(0, 12)} attempt ${job.attempt} was replaced`)
    }
  }

  const publications = async (): Promise<void> => {
    const claims = await claimsIn(storeDir)
    const checkpoints = await checkpointsOf(storeDir, reference.train).catch(() => [])
    const records = [...checkpoints, ...(await commitsOf(storeDir)).filter((r) => r.fingerprint === reference.train)]
    for (const { fingerprint, attempt: token, committedAt } of records) {
      const attempt = Number(/-a(\d+)$/.exec(token)?.[1] ?? 0)
      const own = claims.filter((c) => c.fingerprint === fingerprint)
      if (own.length > 0 && !own.some((c) => c.attempt === attempt)) found.add(`${token} published, and no claim of that name exists`)
      const next = own.find((c) => c.attempt === attempt + 1)
      if (next !== undefined && Date.parse(next.at) < Date.parse(committedAt)) found.add(`attempt ${attempt} published at ${committedAt}, after its successor was claimed at ${next.at}`)
    }
  }

  return {
    look: async () => {
      const jobs = await jobsIn(storeDir)
      await Promise.all([overlaps(jobs), rewrittenEnds(jobs), publications()])
    },
    violations: () => [...found].map((what) => violation('I4', what)),
  }
}
