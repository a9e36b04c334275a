import type { ScheduleDescription } from '@temporalio/client'
import { reaperScheduleId } from '@cpt/contracts/ids'
import { readConfig } from '../config.ts'
import { connect, type Session } from '../connect.ts'
import { plainText } from '../plain-text.ts'
import { table } from '../run/table.ts'
import { driftOf, schedulesAsCode, type ScheduleFlags } from './apply.ts'
import type { ScheduleFile } from './schedule-file.ts'

interface Row {
  id: string
  workflow: string
  state: 'active' | 'paused' | 'not applied'
  next: string | null
  last: string | null
  /** Which file it is made from, and whether it is what that says. */
  code: string
  note: string
  /** What an apply would change. */
  drift: string[]
}

/** All schedules of the server, and those in code that are not there. */
export const list = async (flags: ScheduleFlags & { json?: boolean }): Promise<void> => {
  const config = readConfig({ stateDir: flags.state })
  const code = schedulesAsCode(config.home, flags.dir)
  const session = await connect(config)
  try {
    const rows: Row[] = []
    for await (const { scheduleId } of session.client.schedule.list()) rows.push(await rowOf(session, await session.client.schedule.getHandle(scheduleId).describe(), code.find((c) => c.schedule.id === scheduleId)))
    for (const { file, schedule } of code) if (!rows.some((r) => r.id === schedule.id)) rows.push({ id: schedule.id, workflow: schedule.workflow, state: 'not applied', next: null, last: null, code: file, note: '', drift: [] })
    rows.sort((a, b) => (a.id < b.id ? -1 : 1))
    process.stdout.write(`${flags.json === true ? JSON.stringify(rows) : words(rows)}\n`)
  } finally {
    await session.close()
  }
}

const rowOf = async (session: Session, { scheduleId, action, state, info, raw }: ScheduleDescription, known: { file: string; schedule: ScheduleFile } | undefined): Promise<Row> => {
  const drift = known === undefined ? [] : await driftOf(session, known.schedule, raw.schedule ?? {})
  return {
    id: scheduleId,
    workflow: action.workflowType,
    state: state.paused ? 'paused' : 'active',
    next: info.nextActionTimes[0]?.toISOString() ?? null,
    last: info.recentActions.at(-1)?.takenAt.toISOString() ?? null,
    code: known === undefined ? (scheduleId === reaperScheduleId ? 'made by workers' : 'not in code') : `${known.file}${drift.length === 0 ? '' : ', differs'}`,
    note: state.note ?? '',
    drift,
  }
}

const words = (rows: readonly Row[]): string => {
  if (rows.length === 0) return 'no schedules; `npx cpt schedule apply` makes those of infra/schedules'
  const at = (iso: string | null) => (iso === null ? '–' : `${iso.slice(0, 16).replace('T', ' ')} UTC`)
  return [
    table(['schedule', 'workflow', 'state', 'next', 'last', 'code'], rows.map((r) => [plainText(r.id), plainText(r.workflow), r.state, r.state === 'paused' ? '–' : at(r.next), at(r.last), r.code])),
    ...rows.filter((r) => r.note !== '').map((r) => `${plainText(r.id)}: ${plainText(r.note)}`),
    ...rows.filter((r) => r.drift.length > 0).flatMap((r) => [`${r.id} is not what ${r.code.replace(', differs', '')} says; an apply would change`, ...r.drift.map((line) => `  ${plainText(line)}`)]),
  ].join('\n')
}
