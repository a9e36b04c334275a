import type { Client, ScheduleDescription } from '@temporalio/client'
import { compileUpdatedScheduleOptions, decodeScheduleAction, decodeScheduleSpec, encodeScheduleAction, encodeSchedulePolicies, encodeScheduleSpec } from '@temporalio/client/lib/schedule-helpers.js'
import { decodeScheduleOverlapPolicy } from '@temporalio/client/lib/schedule-types.js'
import { ageMs } from '../gc/age.ts'
import { workflowIdOf } from '../startable.ts'
import type { ScheduleFile } from './schedule-file.ts'

export type ServerSchedule = NonNullable<ScheduleDescription['raw']['schedule']>

/** What a file decides of a schedule; its state (paused or not, the note) is the operator's. */
export type Decided = Required<Pick<ServerSchedule, 'spec' | 'action' | 'policies'>>

/** The schedule of a file as the server takes it. */
export const desiredOf = async (client: Client, taskQueue: string, file: ScheduleFile): Promise<Decided> => {
  const { id, workflow, description, calendars, timeZone, jitter, policies, input } = file
  const { action } = compileUpdatedScheduleOptions(id, {
    spec: {}, state: {},
    action: { type: 'startWorkflow', workflowType: workflow, workflowId: workflowIdOf(workflow, input.name), taskQueue, args: [input], staticSummary: description === '' ? `${workflow} by schedule ${id}` : description },
  })
  return {
    spec: encodeScheduleSpec({ calendars: calendars.map(defined), timezone: timeZone, ...(jitter === undefined ? {} : { jitter: ageMs(jitter) }) }),
    action: await encodeScheduleAction(client.options.loadedDataConverter, client.options.namespace, action, {}),
    policies: encodeSchedulePolicies({ overlap: policies.overlap, catchupWindow: ageMs(policies.catchupWindow), pauseOnFailure: policies.pauseOnFailure }),
  }
}

const defined = <T extends object>(fields: T): { [K in keyof T]: Exclude<T[K], undefined> } => Object.fromEntries(Object.entries(fields).filter(([, v]) => v !== undefined)) as never

/** A schedule in the words of a file, flat by path, so that two can be compared and the difference be told. */
export const viewOf = async (client: Client, { spec, action, policies }: Partial<ServerSchedule>): Promise<Map<string, unknown>> => {
  const { calendars = [], timezone, jitter, ...rest } = decodeScheduleSpec(spec ?? {})
  const { args = [], workflowType, workflowId, taskQueue, staticSummary, type: _type, ...others } = await decodeScheduleAction(client.options.loadedDataConverter, client.options.namespace, action ?? {})
  const flat = new Map<string, unknown>()
  const put = (path: string, value: unknown): void => {
    if (isObject(value)) for (const [key, inner] of Object.entries(value)) put(path === '' ? key : `${path}.${key}`, inner)
    else if (!isEmpty(value)) flat.set(path, value)
  }
  put('', {
    workflow: workflowType, workflowId, taskQueue, description: staticSummary,
    calendars: calendars.map((calendar) => Object.fromEntries(Object.entries(calendar).filter(([key]) => key !== 'comment').map(([field, ranges]) => [field, (ranges as Range[]).map(rangeWords).join(', ')]))),
    timeZone: timezone, jitterMs: jitter, spec: rest,
    policies: { overlap: decodeScheduleOverlapPolicy(policies?.overlapPolicy) ?? 'unspecified', catchupWindowSeconds: Number(policies?.catchupWindow?.seconds ?? 0), pauseOnFailure: policies?.pauseOnFailure === true },
    input: args.length === 1 ? (args[0] as unknown) : args, action: others,
  })
  return flat
}

interface Range {
  start: unknown
  end: unknown
  step: number
}
const rangeWords = ({ start, end, step }: Range): string => `${String(start)}${end === start || end === 0 ? '' : `-${String(end)}`}${step > 1 ? `/${step}` : ''}`

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
/** What the server leaves out where nothing was said, and says as nothing where something was. */
const isEmpty = (value: unknown): boolean => value === undefined || value === null || value === '' || value === 0 || (Array.isArray(value) && value.length === 0)

/** What differs, a line each: `policies.overlap: SKIP → ALLOW_ALL`. */
export const differences = (before: Map<string, unknown>, after: Map<string, unknown>): string[] =>
  [...new Set([...before.keys(), ...after.keys()])].sort().flatMap((path) => {
    const [was, is] = [before, after].map((view) => (view.has(path) ? JSON.stringify(view.get(path)) : 'nothing'))
    return was === is ? [] : [`${path}: ${short(was)} → ${short(is)}`]
  })

const short = (text = ''): string => (text.length > 120 ? `${text.slice(0, 117)}...` : text)
