import { startSlurm, type Slurm } from '../../infra/slurm/start.mjs'
import { prepare, startStand, type Prepared, type Runner, type Stand, type StandOptions } from './stand.ts'
import type { Row } from './table.ts'
import type { Violation } from './checker.ts'

export interface Session {
  seed: number
  count: number
  /** Which planted bugs are tried. */
  named: RegExp
  /** Systems that are disturbed side by side. */
  parallel: number
  /** No further experiment begins after it (performance.now()); rows say how many there were. */
  deadlineMs: number
  prepared: () => Promise<Prepared>
  /** What a system needs to run its jobs there; the cluster is started when the first one needs it. */
  standOptions: (runner: Runner) => Promise<StandOptions>
  say: (line: string) => void
}

/** Opens a session; the store that all experiments start from is made when the first one needs it, and kept in `kept`. */
export const openSession = (settings: Omit<Session, 'prepared' | 'standOptions'>, kept: string | null = null): { session: Session; close: () => Promise<void> } => {
  let made: Promise<Prepared> | null = null
  let cluster: Promise<Slurm> | null = null
  return {
    session: {
      ...settings,
      prepared: () => (made ??= prepare(kept)),
      standOptions: async (runner) => (runner === 'local' ? { runner } : { runner, slurm: await (cluster ??= startSlurm({ settings: { MinJobAge: 3600 } })) }),
    },
    close: async () => {
      await (await made)?.remove()
      await (await cluster)?.stop()
    },
  }
}

export type Task = (stand: Stand) => Promise<void>

/**
 * Works off tasks on `parallel` systems of their own. A task that throws (a run that parks or hangs) is reported to
 * `onFailure`, and its system is replaced: what it leaves must not disturb the next.
 */
export const onStands = async (session: Session, options: StandOptions, tasks: Iterator<Task>, onFailure: (e: unknown) => void): Promise<void> => {
  const prepared = await session.prepared()
  // ports are chosen by looking: one system after the other
  let turn: Promise<unknown> = Promise.resolve()
  const start = (): Promise<Stand> => {
    const mine = turn.then(() => startStand(prepared, options))
    turn = mine.catch(() => undefined)
    return mine
  }
  const worker = async (): Promise<void> => {
    let stand: Stand | null = null
    const leave = async (): Promise<void> => {
      const left = stand
      stand = null
      await left?.stop()
    }
    try {
      for (let next = tasks.next(); next.done !== true && performance.now() < session.deadlineMs; next = tasks.next()) {
        stand ??= await start()
        try {
          await next.value(stand)
          // a scheduler remembers jobs by the folder they worked in: each experiment gets one of its own
          if (options.slurm !== undefined) await leave()
        } catch (e) {
          onFailure(e)
          await leave().catch(onFailure)
        }
      }
    } finally {
      await leave()
    }
  }
  await Promise.all(Array.from({ length: session.parallel }, worker))
}

export const describeViolations = (violations: readonly Violation[]): string => violations.map((v) => `${v.invariant}: ${v.what}`).join('; ')

export const rowOf = (session: Session, began: number, row: Omit<Row, 'seed' | 'seconds' | 'date' | 'peer' | 'peerName' | 'ratio' | 'bound'> & Partial<Row>): Row => ({
  peer: null, peerName: null, ratio: null, bound: null, ...row,
  seed: session.seed, seconds: Math.round((performance.now() - began) / 1000), date: new Date().toISOString().slice(0, 10),
})
