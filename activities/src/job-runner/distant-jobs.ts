import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { JobFolder } from './job-runner.ts'

/** What can be said of a job on another host; `silent`: its lease must not be renewed any more. */
export type DistantState = { state: 'alive' } | { state: 'silent'; seconds: number } | { state: 'lost'; seconds: number }

interface Seen {
  pulse: string
  pulseAt: number
  lease: string
  leaseAt: number
  leaseMs: number
}

/**
 * Tells whether jobs on other hosts live, from two counters timed on our own monotonic clock: the pulse that a job
 * raises every second, and its lease. A job whose pulse stands still is let alone until its lease, which we no longer
 * renew, has stood still for longer than the job itself would bear; from then on it cannot commit anything.
 */
export const distantJobs = (marginMs: number): { look: (job: JobFolder) => Promise<DistantState>; forget: (job: JobFolder) => void } => {
  const jobs = new Map<string, Seen>()
  return {
    look: async (job) => {
      const [pulse, lease, now] = [await text(job, 'pulse'), await text(job, 'lease'), performance.now()]
      const seen = jobs.get(job.path) ?? { pulse, pulseAt: now, lease, leaseAt: now, leaseMs: await leaseMsOf(job) }
      jobs.set(job.path, seen)
      if (pulse !== seen.pulse) Object.assign(seen, { pulse, pulseAt: now })
      if (lease !== seen.lease) Object.assign(seen, { lease, leaseAt: now })
      const still = now - seen.pulseAt
      // a shared disk shows a change of another host some seconds late
      if (still < Math.min(30_000, seen.leaseMs / 4)) return { state: 'alive' }
      const lost = Math.min(still, now - seen.leaseAt) > seen.leaseMs + marginMs
      return { state: lost ? 'lost' : 'silent', seconds: Math.round(still / 1000) }
    },
    forget: (job) => jobs.delete(job.path),
  }
}

const text = (job: JobFolder, name: string): Promise<string> => readFile(join(job.path, name), 'utf8').catch(() => '')

const leaseMsOf = async (job: JobFolder): Promise<number> => {
  const request = z.object({ leaseSeconds: z.number() }).safeParse(await text(job, 'request.json').then((t): unknown => JSON.parse(t)).catch(() => null))
  return request.success ? request.data.leaseSeconds * 1000 : 120_000
}
