import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { progressOf, startRun, type RunHandle } from '../harness/runs.ts'
import { jobsIn } from '../harness/store.ts'
import type { CptRunInput } from '@cpt/contracts/cpt-run'
import { check, nothingLeft, type Subject, type Violation } from './checker.ts'
import { openEventLog, type EventLog } from './event-log.ts'
import { chaosRun, type Stand } from './stand.ts'
import { openWatcher, type Watcher } from './watcher.ts'

export interface Outcome {
  violations: Violation[]
  log: EventLog
  seconds: number
}

export interface Experiment {
  name: string
  seed: number
  /** What happens to the run while it runs; it ends by itself when the run is over. */
  disturb: (run: RunHandle, log: EventLog, over: AbortSignal) => Promise<void>
  ends?: Subject['ends']
  input?: CptRunInput
  /** Stages that are computed again besides training. */
  again?: readonly string[]
  deadlineSeconds?: number
}

/** Where event logs go: of failing experiments they are kept. */
export const logFolder = (): string => process.env['CPT_CHAOS_LOGS'] ?? new URL('failures', import.meta.url).pathname

/** One run from a store in which it is not trained yet, disturbed, awaited and checked against every invariant. */
export const experiment = async (stand: Stand, { name, seed, disturb, ends = 'COMPLETED', input, again = [], deadlineSeconds = 600 }: Experiment): Promise<Outcome> => {
  const began = performance.now()
  const log = openEventLog(join(logFolder(), `${name}-${stand.runner}-${seed}-${Date.now()}.jsonl`))
  try {
    await stand.forget(again)
    const run = await startRun(stand.system, name, input ?? chaosRun(stand.runner))
    log.add('started', { workflowId: run.workflowId, seed, runner: stand.runner })
    const over = new AbortController()
    const watcher = openWatcher(stand)
    const disturbed = disturb(run, log, over.signal).then(() => undefined, (e: unknown) => e)
    const end = await endOf(stand, run, watcher, deadlineSeconds)
    over.abort()
    const failed = await disturbed
    log.add('ended', { end, closedAtMs: (await run.describe()).closeTime?.getTime() })
    if (failed !== undefined) throw failed as Error
    await jobsOver(stand)
    await watcher.look()
    const violations = await check({ stand, run, log, ends, comparable: input === undefined, seen: watcher.violations() })
    for (const v of violations) log.add('violation', { invariant: v.invariant, 'what of': v.what })
    if (violations.length > 0) await tellAttempts(stand, log)
    return { violations, log, seconds: (performance.now() - began) / 1000 }
  } catch (e) {
    log.add('failed', { error: e instanceof Error ? (e.stack ?? e.message) : String(e) })
    throw e
  } finally {
    log.close()
  }
}

/** How every attempt ended: the system that could be asked is gone soon. */
const tellAttempts = async ({ system: { storeDir } }: Stand, log: EventLog): Promise<void> => {
  for (const { fingerprint, folder, attempt, started, end } of await jobsIn(storeDir)) log.add('attempt', { fingerprint: fingerprint.slice(0, 12), attempt, folder, started, end })
}

/** The run parked, or did not end at all. */
export class WrongEnd extends Error {
  override readonly name = 'WrongEnd'
}

const pollMs = 300
/** A question that a server took before it died, or whose run was over meanwhile, is never answered. */
const answerMs = 5_000

/** How the run ended; a parked one counts as ended. A server or worker that is away is not asked again at once. */
const endOf = async ({ system: { client } }: Stand, run: RunHandle, watcher: Watcher, deadlineSeconds: number): Promise<string> => {
  const deadlineMs = performance.now() + deadlineSeconds * 1000
  const ask = <T>(question: () => Promise<T>): Promise<T> => client.withDeadline(Date.now() + answerMs, question)
  for (let round = 0; ; round++) {
    await watcher.look()
    const status = await ask(() => run.describe()).then((d) => d.status.name, () => 'UNKNOWN')
    if (status !== 'RUNNING' && status !== 'UNKNOWN') return status
    // a query is work for the worker: it is asked now and then
    const parked = status === 'RUNNING' && round % 8 === 0 ? (await ask(() => progressOf(run)).catch(() => null))?.parked[0] : undefined
    if (parked !== undefined) throw new WrongEnd(`${run.workflowId} parked at ${parked.stage}: ${parked.type}: ${parked.message}\n${parked.logTail.join('\n')}`)
    if (performance.now() > deadlineMs) throw new WrongEnd(`${run.workflowId} did not end within ${deadlineSeconds} s`)
    await sleep(pollMs)
  }
}

/** A job commits before it exits: waits for the last ones to leave, as long as a job that was told to may take. */
const jobsOver = async (stand: Stand): Promise<void> => {
  const deadlineMs = performance.now() + 30_000
  while ((await nothingLeft({ stand })).some((v) => / still /.test(v.what)) && performance.now() < deadlineMs) await sleep(pollMs)
}
