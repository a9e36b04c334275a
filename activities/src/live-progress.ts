import { Context } from '@temporalio/activity'
import type { LiveProgress } from '@cpt/contracts/cpt-run'
import type { Beat } from '@cpt/contracts/job'
import type { Deps } from './deps.ts'

/** What a watcher sees of one range: the job's beat, or why there is none, and what is special about the attempt. */
export interface Seen {
  attempt: number
  beat: Beat | null
  /** Instead of a beat: what the job waits for. */
  waits?: string
  /** How this attempt differs from what was asked for. */
  note?: string | null
}

/** The live numbers of one line of a run, summed over the ranges that are watched at once. */
export interface LiveLine {
  report: (range: number, seen: Seen) => Promise<void>
  /** A range whose work is committed stays in the sum as done. */
  finish: (range: number) => void
  /** Keeps the activity's heart beating while something takes its time. */
  beating: <T>(work: () => Promise<T>) => Promise<T>
}

export const liveLine = (deps: Pick<Deps, 'client' | 'log'>, key: string): LiveLine => {
  const ranges = new Map<number, Seen>()
  const pace: Pace = { signalledAt: performance.now(), signalGapMs: 3_000, first: null }
  return {
    report: async (range, seen) => {
      ranges.set(range, seen)
      const live = summed(key, [...ranges.values()])
      live.etaSeconds = etaSeconds(live, pace)
      const ctx = Context.current()
      ctx.heartbeat(live)
      // the workflow hears of the numbers rarely, since each signal is history
      const workflow = ctx.info.workflowExecution
      if (workflow === undefined || (seen.beat === null && seen.waits === undefined)) return
      if (performance.now() - pace.signalledAt < pace.signalGapMs) return
      Object.assign(pace, { signalledAt: performance.now(), signalGapMs: Math.min(pace.signalGapMs * 1.5, 600_000) })
      await deps.client.workflow.getHandle(workflow.workflowId, workflow.runId).signal('liveProgress', live).catch((e: unknown) => { deps.log.debug({ err: e }, 'live progress not delivered') })
    },
    finish: (range) => {
      const seen = ranges.get(range)
      if (seen?.beat != null) ranges.set(range, { ...seen, beat: { ...seen.beat, done: seen.beat.total, tokensPerSecond: 0 } })
    },
    beating: async (work) => {
      const ctx = Context.current()
      const timer = setInterval(() => { ctx.heartbeat(summed(key, [...ranges.values()])) }, 1_000)
      try {
        return await work()
      } finally {
        clearInterval(timer)
      }
    },
  }
}

/** One line for all ranges; step and loss belong to a single job. */
const summed = (key: string, seen: Seen[]): LiveProgress => {
  const only = seen.length === 1 ? seen[0] : undefined
  const sum = (of: (beat: Beat) => number | undefined): number | null => {
    const values = seen.flatMap((s) => (s.beat === null ? [] : (of(s.beat) ?? [])))
    return values.length === 0 ? null : values.reduce((a, b) => a + b, 0)
  }
  return {
    key, phase: phasesOf(seen), done: sum((b) => b.done) ?? 0, total: sum((b) => b.total) ?? 0,
    step: only?.beat?.step ?? null, tokens: sum((b) => b.tokens), loss: only?.beat?.loss ?? null, tokensPerSecond: sum((b) => b.tokensPerSecond),
    etaSeconds: null, attempts: Math.max(0, ...seen.map((s) => s.attempt)), ...estimated(seen),
  }
}

/** Ranges run side by side, so the longest says how long; what they compute adds up. */
const estimated = (seen: Seen[]): Pick<LiveProgress, 'estimate'> => {
  const all = seen.flatMap((s) => s.beat?.estimate ?? [])
  const sum = (of: 'tokens' | 'flop' | 'gpuHours'): number => all.reduce((total, e) => total + e[of], 0)
  return all.length === 0 ? {} : { estimate: { tokens: sum('tokens'), flop: sum('flop'), seconds: Math.max(...all.map((e) => e.seconds)), gpuHours: sum('gpuHours') } }
}

/** `tokenize`, or `2 × tokenize, 1 × waiting: Priority` where ranges differ. */
const phasesOf = (seen: Seen[]): string => {
  const words = seen.map((s) => `${s.waits ?? s.beat?.phase ?? 'starting'}${s.note == null ? '' : ` (${s.note})`}`)
  const kinds = [...new Set(words)]
  return kinds.length === 1 ? (kinds[0] ?? '') : kinds.map((k) => `${words.filter((w) => w === k).length} × ${k}`).join(', ')
}

interface Pace {
  signalledAt: number
  signalGapMs: number
  /** Where the present phase stood when this watcher first saw it: the rate, and so the ETA, come from there. */
  first: { phase: string; done: number; at: number } | null
}

/** Seconds until `total` at the pace seen so far; null before there is one. */
const etaSeconds = ({ phase, done, total }: LiveProgress, pace: Pace): number | null => {
  // each shard counts from zero again
  if (pace.first?.phase !== phase || done < pace.first.done) pace.first = { phase, done, at: performance.now() }
  const seconds = (performance.now() - pace.first.at) / 1000
  const gained = done - pace.first.done
  // the first seconds of a phase say little about its pace
  return seconds > 2 && gained > 0 && total > 0 ? ((total - done) * seconds) / gained : null
}
