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
  /** What the systems of a lane need to run their jobs there: a cluster of its own, since killed daemons are felt by all who use them. */
  standOptions: (runner: Runner, lane: number) => Promise<StandOptions>
  say: (line: string) => void
}

/** Opens a session; the store that all experiments start from is made when the first one needs it, and kept in `kept`. */
export const openSession = (settings: Omit<Session, 'prepared' | 'standOptions'>, kept: string | null = null): { session: Session; close: () => Promise<void> } => {
  let made: Promise<Prepared> | null = null
  const clusters = new Map<number, Promise<Slurm>>()
  const clusterOf = (lane: number): Promise<Slurm> => {
    const cluster = clusters.get(lane) ?? startSlurm({ settings: { MinJobAge: 3600 } })
    clusters.set(lane, cluster)
    return cluster
  }
  return {
    session: {
      ...settings,
      prepared: () => (made ??= prepare(kept)),
      standOptions: async (runner, lane) => (runner === 'local' ? { runner } : { runner, slurm: await clusterOf(lane) }),
    },
    close: async () => {
      await (await made)?.remove()
      for (const cluster of clusters.values()) await (await cluster).stop()
    },
  }
}

export type Task = (stand: Stand) => Promise<void>

/**
 * Works off tasks on `parallel` systems of their own. A task that throws (a run that parks or hangs) is reported to
 * `onFailure`, and its system is replaced: what it leaves must not disturb the next.
 */
export const onStands = async (session: Session, runner: Runner, over: StandOptions, tasks: Iterator<Task>, onFailure: (e: unknown) => void): Promise<void> => {
  const prepared = await session.prepared()
  // ports are chosen by looking: one system after the other
  let turn: Promise<unknown> = Promise.resolve()
  const start = (lane: number): Promise<Stand> => {
    const mine = turn.then(async () => startStand(prepared, { ...(await session.standOptions(runner, lane)), ...over }))
    turn = mine.catch(() => undefined)
    return mine
  }
  const worker = async (_: unknown, lane: number): Promise<void> => {
    let stand: Stand | null = null
    const leave = async (): Promise<void> => {
      const left = stand
      stand = null
      await left?.stop()
    }
    try {
      for (let next = tasks.next(); next.done !== true && performance.now() < session.deadlineMs; next = tasks.next()) {
        stand ??= await start(lane)
        try {
          await next.value(stand)
          // a scheduler remembers jobs by the folder they worked in: each experiment gets one of its own
          if (stand.slurm !== null) await leave()
        } catch (e) {
          onFailure(e)
          await leave().catch(onFailure)
        }
      }
    } finally {
      await leave()
    }
  }
  await Promise.all(Array.from({ length: session.parallel }).map(worker))
}

export const describeViolations = (violations: readonly Violation[]): string => violations.map((v) => `${v.invariant}: ${v.what}`).join('; ')

export const rowOf = (session: Session, began: number, row: Omit<Row, 'seed' | 'seconds' | 'date' | 'peer' | 'peerName' | 'ratio' | 'bound'> & Partial<Row>): Row => ({
  peer: null, peerName: null, ratio: null, bound: null, ...row,
  seed: session.seed, seconds: Math.round((performance.now() - began) / 1000), date: new Date().toISOString().slice(0, 10),
})
