import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { wholeStore } from './checker.ts'
import { claimsIn, checkpointsOf, jobsIn, type JobEntry } from '../harness/store.ts'
import type { EventLog } from './event-log.ts'
import { isThere } from './process-table.ts'
import type { Seeded } from './seeded.ts'
import type { Stand } from './stand.ts'

export type Target = 'job' | 'worker' | 'server' | 'slurmctld' | 'slurmd'

const pollMs = 50

/** Sleeps unless the run is over by then. */
export const pause = (ms: number, over: AbortSignal): Promise<void> => sleep(ms, undefined, { signal: over }).catch(() => undefined)

export const killWorker = async (stand: Stand, log: EventLog, awayMs: number): Promise<void> => {
  const pid = stand.system.workerPid()
  await stand.system.killWorker()
  // a job that was submitted and has not claimed its start yet is submitted again by the next worker
  const unstarted = (await jobsIn(stand.system.storeDir)).filter((j) => j.started === null).length
  log.add('kill', { target: 'worker', pid, unstarted })
  await sleep(awayMs)
  await stand.system.startWorker()
  log.add('back', { target: 'worker', pid: stand.system.workerPid() })
}

export const killServer = async (stand: Stand, log: EventLog, awayMs: number): Promise<void> => {
  log.add('kill', { target: 'server' })
  await stand.system.killServer()
  await sleep(awayMs)
  await stand.system.startServer()
  log.add('back', { target: 'server' })
}

/** What of a job's work is on record: a kill after a kill with nothing new in between would spend the budget of failures. */
const progressOf = async (stand: Stand, job: JobEntry): Promise<string> => {
  const checkpoints = job.fingerprint === stand.reference.train ? await checkpointsOf(stand.system.storeDir, job.fingerprint).catch(() => []) : []
  return String(checkpoints.at(-1)?.step ?? 0)
}

export interface JobKill {
  atMs: number
  job: JobEntry
}

/**
 * Kills whichever job runs, once it has made progress since the last kill of the same work; null when the run is over
 * first. `killed` remembers the progress at each kill.
 */
export const killJob = async (stand: Stand, log: EventLog, killed: Map<string, string>, delayMs: number, over: AbortSignal): Promise<JobKill | null> => {
  let delayed = false
  while (!over.aborted) {
    for (const job of await jobsIn(stand.system.storeDir)) {
      if (!job.isRunning || job.started === null || job.end !== null) continue
      if (killed.get(job.fingerprint) === (await progressOf(stand, job))) continue
      if (!delayed) {
        delayed = true
        await pause(delayMs, over)
        break
      }
      const progress = await progressOf(stand, job)
      try {
        process.kill(job.started.pid, 'SIGKILL')
      } catch {
        continue // it has ended by itself meanwhile
      }
      killed.set(job.fingerprint, progress)
      const { atMs } = log.add('kill', { target: 'job', pid: job.started.pid, attempt: job.attempt, fingerprint: job.fingerprint.slice(0, 12), step: job.beat?.step ?? 0, progress })
      return { atMs, job }
    }
    await pause(pollMs, over)
  }
  return null
}

/** Milliseconds from a death to the next attempt of that work having claimed its start; null when none came. */
export const recoveryMs = async (stand: Stand, { atMs, job }: JobKill, over: AbortSignal): Promise<{ claimedMs: number; startedMs: number } | null> => {
  while (!over.aborted) {
    const next = (await jobsIn(stand.system.storeDir)).find((j) => j.fingerprint === job.fingerprint && j.attempt === job.attempt + 1 && j.folder.split('/').at(-2) === job.folder.split('/').at(-2))
    if (next?.started != null) {
      const claim = (await claimsIn(stand.system.storeDir)).find((c) => c.fingerprint === job.fingerprint && c.attempt === job.attempt + 1)
      return { claimedMs: Date.parse(claim?.at ?? '') - atMs, startedMs: (await startedAtMs(next)) - atMs }
    }
    await pause(10, over)
  }
  return null
}

const startedAtMs = async (job: JobEntry): Promise<number> => (await stat(join(job.folder, 'started.json'))).mtimeMs

export const total = (kills: Record<Target, number>): number => Object.values(kills).reduce((a, b) => a + b, 0)

/** Kills a daemon of the cluster and starts it again; of the nodes, the one whose turn it is by the hour of the log. */
const killDaemon = async ({ slurm }: Stand, log: EventLog, target: 'slurmctld' | 'slurmd', awayMs: number): Promise<void> => {
  if (slurm === null) throw new Error(`${target} cannot be killed: this system runs no cluster`)
  const nodes = Object.values(slurm.slurmds)
  const daemon = target === 'slurmctld' ? slurm.ctld : nodes[log.events.length % nodes.length]
  if (daemon === undefined) throw new Error('the cluster has no node')
  log.add('kill', { target, name: daemon.name, pid: daemon.pid })
  await daemon.kill()
  await sleep(awayMs)
  await daemon.start()
  log.add('back', { target, name: daemon.name })
}

/** Kills at random, every target as often as the others, until the run is over or `most` kills are done; returns how many there were of each. */
export const randomKills = async (stand: Stand, log: EventLog, rng: Seeded, most: number, targets: readonly Target[], over: AbortSignal): Promise<Record<Target, number>> => {
  const done: Record<Target, number> = { job: 0, worker: 0, server: 0, slurmctld: 0, slurmd: 0 }
  const killed = new Map<string, string>()
  while (!over.aborted && total(done) < most) {
    const fewest = Math.min(...targets.map((t) => done[t]))
    const target = rng.pick(targets.filter((t) => done[t] === fewest))
    const [delayMs, awayMs] = [rng.between(0, 700), rng.between(0, 800)]
    if (target === 'job') {
      if ((await killJob(stand, log, killed, delayMs, over)) === null) break
    } else {
      await pause(delayMs, over)
      if (target === 'worker') await killWorker(stand, log, awayMs)
      else if (target === 'server') await killServer(stand, log, awayMs)
      else await killDaemon(stand, log, target, awayMs)
    }
    done[target] += 1
  }
  return done
}

/** Waits until the armed failpoint has fired; starts the worker again if it was the worker's. True when it fired. */
export const fired = async (stand: Stand, log: EventLog, failpoint: string, over: AbortSignal): Promise<boolean> => {
  while (!over.aborted) {
    if (!(await stand.isArmed(failpoint))) {
      log.add('kill', { failpoint })
      for (const v of await wholeStore({ stand })) log.add('seen', { invariant: v.invariant, 'what of': v.what })
      const worker = stand.system.workerPid()
      await pause(200, over)
      if (worker !== null && !(await isThere(worker))) {
        await stand.system.killWorker()
        await stand.system.startWorker()
        log.add('back', { target: 'worker' })
      }
      return true
    }
    await pause(pollMs, over)
  }
  return false
}
