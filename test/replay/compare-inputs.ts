import { isDeepStrictEqual } from 'node:util'
import { arrayFromPayloads, defaultPayloadConverter } from '@temporalio/common'
import { eventsOf, type Recorded } from './recorded-histories.ts'
import type { Called } from './replay-histories.ts'

/** What a history says was called: activities and child workflows by their ids in the order they were scheduled, then the next run of a chain. */
export const recordedCalls = (recorded: Pick<Recorded, 'history'>): Called[] =>
  eventsOf(recorded).flatMap(({ activityTaskScheduledEventAttributes: activity, startChildWorkflowExecutionInitiatedEventAttributes: child, workflowExecutionContinuedAsNewEventAttributes: next }) => {
    if (activity != null) return [{ call: activity.activityId ?? '', args: decoded(activity.input?.payloads) }]
    if (child != null) return [{ call: child.workflowId ?? '', args: decoded(child.input?.payloads) }]
    if (next != null) return [{ call: 'continueAsNew', args: decoded(next.input?.payloads) }]
    return []
  })

const decoded = (payloads: Parameters<typeof arrayFromPayloads>[1]): unknown => JSON.parse(JSON.stringify(arrayFromPayloads(defaultPayloadConverter, payloads)))

/**
 * How the inputs of the calls that a history has differ from what the code calls with today, one line per JSON path,
 * such as `ingest $[0].request.fields.text: recorded "text", now "body"`. Calls that the history has not are none of its
 * business: the code may be ahead of it by the end, and which are called, and in what order, replay compares itself.
 */
export const inputDifferences = (recorded: readonly Called[], now: readonly Called[]): string[] => {
  // an id comes again once its activity is closed: the second of the history is the second of the code
  const left = [...now]
  return recorded.flatMap(({ call, args }) => {
    const at = left.findIndex((c) => c.call === call)
    const [today] = at < 0 ? [] : left.splice(at, 1)
    return today === undefined ? [`${call}: recorded, not called now`] : differences(args, today.args, '$').map((d) => `${call} ${d}`)
  })
}

const differences = (recorded: unknown, now: unknown, path: string): string[] => {
  if (isDeepStrictEqual(recorded, now)) return []
  if (!isContainer(recorded) || !isContainer(now) || Array.isArray(recorded) !== Array.isArray(now)) return [`${path}: recorded ${shown(recorded)}, now ${shown(now)}`]
  const step = (key: string): string => (Array.isArray(recorded) ? `[${key}]` : /^[A-Za-z_]\w*$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`)
  return [...new Set([...Object.keys(recorded), ...Object.keys(now)])].flatMap((key) => differences(recorded[key], now[key], path + step(key)))
}

const isContainer = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null

const shown = (value: unknown): string => {
  const text = value === undefined ? 'nothing' : JSON.stringify(value)
  return text.length <= 120 ? text : `${text.slice(0, 120)}…`
}
