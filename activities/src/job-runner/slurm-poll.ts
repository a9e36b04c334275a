import { setTimeout as delay } from 'node:timers/promises'
import { clusterFacts, listJobs, type ClusterFacts, type Row, type SlurmCommand } from './slurm-commands.ts'

/** What the scheduler said last; `askedAt` is on this process's monotonic clock, in milliseconds. */
export interface Listing {
  rows: Row[]
  askedAt: number
}

/** One question for all jobs every few seconds, however many ask. */
export interface SlurmPoll {
  /** The latest answer, at most as old as the poll's period; `failed` when there is none. Returns within seconds in any case. */
  latest: () => Promise<Listing | { failed: string }>
  /** An answer to a question asked after this call. */
  fresh: () => Promise<Listing | { failed: string }>
  facts: () => Promise<ClusterFacts | { failed: string }>
}

/** A caller is a watcher that must also heartbeat: it does not wait for a scheduler that thinks. */
const callerPatienceMs = 3_000

export const slurmPoll = (run: SlurmCommand, pollMs: number): SlurmPoll => {
  let last: Listing | null = null
  let lastFailure: { failed: string } | null = null
  let nextAt = 0
  let failures = 0
  let underWay: Promise<Listing | { failed: string }> | null = null
  let known: ClusterFacts | null = null

  const ask = (): Promise<Listing | { failed: string }> => {
    const askedAt = performance.now()
    underWay ??= listJobs(run).then((rows) => {
      underWay = null
      const isFailure = !Array.isArray(rows)
      failures = isFailure ? failures + 1 : 0
      // a scheduler in trouble is asked less often
      nextAt = performance.now() + pollMs * Math.min(2 ** failures, 10)
      if (isFailure) return (lastFailure = rows)
      lastFailure = null
      return (last = { rows, askedAt })
    })
    return underWay
  }
  const patiently = async <T>(answer: Promise<T>): Promise<T | { failed: string }> => {
    const enough = new AbortController()
    try {
      return await Promise.race([answer, delay(callerPatienceMs, { failed: 'it does not answer' }, { signal: enough.signal })])
    } finally {
      enough.abort()
    }
  }
  return {
    latest: async () => {
      if (underWay === null && performance.now() < nextAt) return lastFailure ?? last ?? { failed: 'not asked yet' }
      return await patiently(ask())
    },
    fresh: async () => {
      const since = performance.now()
      const first = await patiently(ask())
      // one that was under way already may have been answered before
      return 'failed' in first || first.askedAt >= since ? first : await patiently(ask())
    },
    facts: async () => {
      if (known !== null) return known
      const answer = await patiently(clusterFacts(run))
      if ('failed' in answer) return answer
      return (known = answer)
    },
  }
}
