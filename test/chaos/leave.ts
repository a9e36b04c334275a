import { nothingLeft, type Violation } from './checker.ts'
import { experiment } from './experiment.ts'
import { pause } from './faults.ts'
import { jobsIn } from '../harness/store.ts'
import { seeded } from './seeded.ts'
import { describeViolations, onStands, rowOf, type Session, type Task } from './session.ts'
import { slowRun, type Runner, type Stand } from './stand.ts'
import { boundOfZero, quantile, type Row } from './table.ts'

/** The lease of a product on one machine is 120 s; compressed so that fifty of them pass in minutes. */
const leaseSeconds = 8
/** A job looks at its lease once a second, saves and leaves. */
const leaveSeconds = 15
const cancelSeconds = 30

/** Nothing has to be seen for so long before nothing counts as left: a worker may not have heard yet that its run is over. */
const quietMs = 3_000

/** Looks until nothing has been left for a while, or too long for that; returns what is left and when something was seen last. */
const untilNothingLeft = async (stand: Stand, sinceMs: number, mostSeconds: number): Promise<{ seconds: number; left: Violation[] }> => {
  let lastSeenMs = sinceMs
  for (;;) {
    const left = await nothingLeft({ stand })
    const now = performance.now()
    if (left.length > 0) lastSeenMs = now
    if (now - lastSeenMs > quietMs || (left.length > 0 && now - sinceMs > mostSeconds * 1000)) return { seconds: (lastSeenMs - sinceMs) / 1000, left }
    await pause(200, new AbortController().signal)
  }
}

const runningJobs = async ({ system: { storeDir } }: Stand): Promise<number> => (await jobsIn(storeDir)).filter((j) => j.isRunning && j.end === null).length

/** A moment by seed: of every three, one anywhere in the run's first seconds, two while a job runs. */
const momentOf = (stand: Stand, seed: number) => async (over: AbortSignal): Promise<void> => {
  const rng = seeded(seed)
  if (seed % 3 === 0) return pause(rng.between(0, 12_000), over)
  while (!over.aborted && (await runningJobs(stand)) === 0) await pause(50, over)
  await pause(rng.between(0, 6_000), over)
}

/** Cancels or terminates a run at a moment of its own and says how long something of it was left. */
export const leaveAt = async (stand: Stand, how: 'cancel' | 'terminate', seed: number, moment: (over: AbortSignal) => Promise<void>): Promise<{ seconds: number; jobs: number; violations: Violation[] }> => {
  const run = slowRun(stand.runner)
  let jobs = 0
  let after: Awaited<ReturnType<typeof untilNothingLeft>> = { seconds: 0, left: [] }
  const outcome = await experiment(stand, {
    name: how, seed,
    ends: how === 'cancel' ? 'CANCELLED' : 'TERMINATED',
    // training of its own: what an earlier point has left trained must not make this one shorter
    input: { ...run, training: { ...run.training, peakLr: 1e-4 * (1 + seed / 1e6) } },
    disturb: async (run, log, over) => {
      await moment(over)
      jobs = await runningJobs(stand)
      const leftAtMs = performance.now()
      log.add(how, { jobs })
      await (how === 'cancel' ? run.cancel() : run.terminate('chaos'))
      after = await untilNothingLeft(stand, leftAtMs, how === 'cancel' ? cancelSeconds : stand.leaseSeconds + leaveSeconds)
      log.add('left', { seconds: after.seconds, what: after.left.map((v) => v.what) })
    },
  })
  return { seconds: after.seconds, jobs, violations: [...outcome.violations.filter((v) => v.invariant !== 'I5'), ...after.left] }
}

export const leaveSection = async (session: Session, runner: Runner): Promise<Row[]> => {
  const began = performance.now()
  const seconds: Record<'cancel' | 'terminate', number[]> = { cancel: [], terminate: [] }
  const metJobs = { cancel: 0, terminate: 0 }
  const unplanned: Record<'cancel' | 'terminate', string[]> = { cancel: [], terminate: [] }
  const tasks = function* (): Generator<Task> {
    for (let i = 0; i < session.count; i++) {
      const how = i % 2 === 0 ? 'cancel' : 'terminate'
      const seed = session.seed + 30_000 + i
      yield async (stand) => {
        try {
          const { seconds: took, jobs, violations } = await leaveAt(stand, how, seed, momentOf(stand, seed))
          seconds[how].push(took)
          if (jobs > 0) metJobs[how] += 1
          if (violations.length > 0) unplanned[how].push(`seed ${seed}: ${describeViolations(violations)}`)
          session.say(`${runner} ${how} ${i + 1} of ${session.count}: nothing left after ${took.toFixed(1)} s${violations.length === 0 ? '' : `; ${describeViolations(violations)}`}`)
        } catch (e) {
          unplanned[how].push(e instanceof Error ? e.message : String(e))
          throw e
        }
      }
    }
  }
  // most of it is waiting for leases to run out
  await onStands({ ...session, parallel: session.parallel + 2 }, runner, { leaseSeconds }, tasks(), (e) => session.say(`${runner} FAILED: ${e instanceof Error ? e.message : String(e)}`))
  return (['cancel', 'terminate'] as const).map((how) => {
    const most = how === 'cancel' ? cancelSeconds : leaseSeconds + leaveSeconds
    const planned = how === 'cancel' ? Math.ceil(session.count / 2) : Math.floor(session.count / 2)
    const late = seconds[how].filter((s) => s > most).length + unplanned[how].length
    return rowOf(session, began, {
      section: 'leave', measure: how === 'cancel' ? `cancelled ${runner} runs of which something is left after ${most} s` : `terminated ${runner} runs of which something is left after the lease (${leaseSeconds} s, compressed) and ${leaveSeconds} s`,
      ours: late, unit: `of ${seconds[how].length} runs (${planned} planned), a job ran in ${metJobs[how]}; slowest ${Math.max(0, ...seconds[how]).toFixed(1)} s, median ${quantile(seconds[how], 0.5).toFixed(1)} s`,
      goal: '0', holds: late === 0 && seconds[how].length === planned, bound: late === 0 ? boundOfZero(seconds[how].length) : unplanned[how].join(' | ').slice(0, 2000), count: seconds[how].length,
    })
  })
}
