import { setTimeout as sleep } from 'node:timers/promises'
import type { ScheduleDescription, ScheduleHandle } from '@temporalio/client'
import { msToTs, tsToMs } from '@temporalio/common/lib/time.js'
import { CliError } from '../cli-error.ts'
import { operator } from '../config.ts'
import { runPage, type Session } from '../connect.ts'
import { plainText } from '../plain-text.ts'
import { withSession } from '../run/with-session.ts'

interface Flags {
  state?: string
}
const say = (line: string): void => void process.stdout.write(`${plainText(line)}\n`)
const pollMs = 200
const patienceMs = 15_000

/** The schedule of an id, and how it stands. */
const find = async ({ client, namespace }: Session, id: string): Promise<{ handle: ScheduleHandle; is: ScheduleDescription }> => {
  const { ScheduleNotFoundError } = await import('@temporalio/client')
  const handle = client.schedule.getHandle(id)
  try {
    return { handle, is: await handle.describe() }
  } catch (error) {
    if (!(error instanceof ScheduleNotFoundError)) throw error
    throw new CliError('failed', `no schedule ${id} in namespace ${namespace}`, '`cpt schedule list` lists them, `cpt schedule apply` makes those of infra/schedules.')
  }
}

/** Starts nothing until `resume`; the reason goes on record as the schedule's note. */
export const pause = (id: string, flags: Flags & { reason: string }): Promise<void> =>
  withSession(flags.state, async (session) => {
    const { handle, is } = await find(session, id)
    if (is.state.paused) return say(`${id}: paused already: ${is.state.note ?? ''}`)
    await handle.pause(`${flags.reason} (paused by ${operator()})`)
    say(`${id}: paused; what runs goes on, nothing new begins until \`npx cpt schedule resume ${id}\``)
  })

export const resume = (id: string, flags: Flags & { reason: string }): Promise<void> =>
  withSession(flags.state, async (session) => {
    const { handle, is } = await find(session, id)
    if (!is.state.paused) return say(`${id}: not paused`)
    await handle.unpause(`${flags.reason === '' ? '' : `${flags.reason} `}(resumed by ${operator()})`)
    const [next] = (await handle.describe()).info.nextActionTimes
    say(`${id}: resumed; next at ${next?.toISOString() ?? 'no time'}`)
  })

/** Starts one run now, as the schedule's own policy on overlap allows, and says which one. */
export const trigger = (id: string, flags: Flags): Promise<void> =>
  withSession(flags.state, async (session) => {
    const { handle, is } = await find(session, id)
    await handle.trigger(is.policies.overlap)
    const after = await changed(handle, ({ info }) => info.numActionsTaken > is.info.numActionsTaken || info.numActionsSkippedOverlap > is.info.numActionsSkippedOverlap)
    const underWay = is.info.runningActions.map((a) => a.workflow.workflowId).join(', ')
    const started = after.info.recentActions.at(-1)?.action.workflow.workflowId
    if (after.info.numActionsTaken > is.info.numActionsTaken && started !== undefined) return say(`started ${started}\n${runPage(session, started) ?? ''}`)
    if (after.info.numActionsSkippedOverlap > is.info.numActionsSkippedOverlap) throw new CliError('conflict', `nothing was started: ${underWay} is under way, and overlap is ${is.policies.overlap}`, 'It can be followed with `cpt watch`, or ended with `cpt cancel`.')
    if (underWay !== '') return say(`${id}: waits for the end of ${underWay} (overlap ${is.policies.overlap})`)
    throw new CliError('failed', `${id} was triggered, and the server started nothing within ${patienceMs / 1000} s`, '`cpt schedule list` shows how it stands.')
  })

export interface BackfillFlags extends Flags {
  from: Date
  to: Date
  overlap?: 'SKIP' | 'BUFFER_ONE' | 'BUFFER_ALL' | 'CANCEL_OTHER' | 'ALLOW_ALL'
}

/** Has the server take the times of a span that has passed, all of them now, under the schedule's policy on overlap or another. */
export const backfill = (id: string, { from, to, overlap, ...flags }: BackfillFlags): Promise<void> =>
  withSession(flags.state, async (session) => {
    if (from >= to) throw new CliError('usage', `--from ${from.toISOString()} is not before --to ${to.toISOString()}`, 'Give a span such as --from 2026-01-01 --to 2026-01-08.')
    const { handle, is } = await find(session, id)
    const policy = overlap ?? is.policies.overlap
    const times = await timesWithin(session, id, from, to)
    if (times.length === 0) return say(`${id}: no time of this schedule lies within that span; nothing was started`)
    await handle.backfill({ start: from, end: to, overlap: policy })
    const counted = ({ info }: ScheduleDescription): number => info.numActionsTaken + info.numActionsSkippedOverlap
    // what has to wait for its predecessor is taken later; the first one is not
    const after = await changed(handle, (d) => counted(d) >= counted(is) + (policy === 'SKIP' || policy === 'ALLOW_ALL' ? times.length : 1))
    const [taken, skipped] = [after.info.numActionsTaken - is.info.numActionsTaken, after.info.numActionsSkippedOverlap - is.info.numActionsSkippedOverlap]
    say(`${id}: ${times.length} time${times.length === 1 ? '' : 's'} within that span under overlap ${policy}: ${taken} started, ${skipped} left out${times.length > taken + skipped ? `, ${times.length - taken - skipped} under way already or to come` : ''}`)
    for (const time of times.slice(0, 20)) say(`  ${time.toISOString()}`)
    if (times.length > 20) say(`  and ${times.length - 20} more`)
  })

const timesWithin = async ({ client, namespace }: Session, scheduleId: string, from: Date, to: Date): Promise<Date[]> => {
  const { startTime } = await client.workflowService.listScheduleMatchingTimes({ namespace, scheduleId, startTime: msToTs(from.getTime()), endTime: msToTs(to.getTime()) })
  return startTime.map((time) => new Date(tsToMs(time)))
}

/** The schedule once a condition holds, or as it is when it did not come to that. */
const changed = async (handle: ScheduleHandle, holds: (is: ScheduleDescription) => boolean): Promise<ScheduleDescription> => {
  const lateMs = performance.now() + patienceMs
  for (;;) {
    const is = await handle.describe()
    if (holds(is) || performance.now() > lateMs) return is
    await sleep(pollMs)
  }
}
