import { randomUUID } from 'node:crypto'
import { ApplicationFailure, WorkflowFailedError, WorkflowUpdateFailedError, type WorkflowHandle } from '@temporalio/client'
import type { CptRunInput, CptRunResult, Parked, ResolveFailure, RunProgress, StageLine } from '@cpt/contracts/cpt-run'
import { controlQueue } from '@cpt/contracts/ids'
import type { Problem } from '@cpt/contracts/parse-input'
import type { System } from './system.ts'
import { until } from './until.ts'

type HistoryEvent = NonNullable<Awaited<ReturnType<WorkflowHandle['fetchHistory']>>['events']>[number]
export type RunHandle = WorkflowHandle<(input?: CptRunInput) => Promise<CptRunResult>>

/** Starts cptRun as the UI does: one JSON payload, or none at all. */
export const startRun = (system: System, name: string, ...input: [unknown?]): Promise<RunHandle> =>
  system.client.workflow.start('cptRun', { taskQueue: controlQueue, workflowId: `test/${name}-${randomUUID().slice(0, 8)}`, args: input }) as Promise<RunHandle>

export const progressOf = (run: RunHandle): Promise<RunProgress> => run.query<RunProgress>('progress')
export const lineOf = (progress: RunProgress, key: string): StageLine | undefined => progress.stages.find((s) => s.key === key)

/** The result; a run that parks instead fails the test at once with what the page says. */
export const resultOf = async (run: RunHandle, deadlineSeconds = 300): Promise<CptRunResult> => {
  await until(`the end of ${run.workflowId}`, async () => {
    if ((await run.describe()).status.name !== 'RUNNING') return true
    const parked = (await progressIfAnswered(run))?.parked[0]
    if (parked !== undefined) throw new Error(`${run.workflowId} parked at ${parked.stage}: ${parked.type}: ${parked.message}\n${parked.logTail.join('\n')}`)
    return false
  }, deadlineSeconds)
  return await run.result()
}

/** The park of a stage, once it is there. */
export const parkOf = (run: RunHandle, stage: string, park = 1, deadlineSeconds = 120): Promise<Parked> =>
  until(`${run.workflowId}: park ${park} of ${stage}`, async () => {
    const state = await progressIfAnswered(run)
    const other = state?.parked.find((p) => p.stage !== stage)
    if (other !== undefined) throw new Error(`${run.workflowId} parked at ${other.stage}, not ${stage}: ${other.type}: ${other.message}\n${other.logTail.join('\n')}`)
    const found = state?.parked.find((p) => p.park === park)
    if (found === undefined) await stillRuns(run)
    return found ?? null
  }, deadlineSeconds)

/** What is waited for in a run that has ended never comes. */
const stillRuns = async (run: RunHandle): Promise<void> => {
  const status = await run.describe().then((d) => d.status.name, () => 'RUNNING')
  if (status === 'RUNNING') return
  const words = (e: unknown): string => (e instanceof Error ? [e.message, ...(e.cause === undefined ? [] : [words(e.cause)])].join(': ') : String(e))
  throw new Error(`${run.workflowId} is ${status}: ${await run.result().then((result) => JSON.stringify(result), words)}`)
}

/** The line of a stage, once it is in a given state; done is done, whether by this run or by an earlier one. */
export const stageIs = (run: RunHandle, key: string, state: 'running' | 'done' | 'skipped', deadlineSeconds = 120): Promise<StageLine> =>
  until(`${run.workflowId}: ${key} is ${state}`, async () => {
    const progress = await progressIfAnswered(run)
    const parked = progress?.parked[0]
    if (parked !== undefined) throw new Error(`${run.workflowId} parked at ${parked.stage}: ${parked.type}: ${parked.message}\n${parked.logTail.join('\n')}`)
    const line = progress === null ? undefined : lineOf(progress, key)
    return line?.state === state || (state === 'done' && line?.state === 'reused') ? line : null
  }, deadlineSeconds)

/** A query is refused while no worker polls or the server is away: not yet, rather than wrong. */
const progressIfAnswered = (run: RunHandle): Promise<RunProgress | null> => progressOf(run).catch(() => null)

export const resolve = (run: RunHandle, decision: ResolveFailure): Promise<string> => run.executeUpdate<string, [ResolveFailure]>('resolveFailure', { args: [decision] })

/** What the validator says to a decision that it refuses. */
export const refusal = async (run: RunHandle, decision: unknown): Promise<string> => {
  try {
    return `accepted: ${await run.executeUpdate<string, [unknown]>('resolveFailure', { args: [decision] })}`
  } catch (e) {
    if (!(e instanceof WorkflowUpdateFailedError)) throw e
    return e.cause instanceof Error ? e.cause.message : e.message
  }
}

/** How a run failed. Throws when it did not. */
export const failureOf = async (run: RunHandle): Promise<{ type: string; message: string; problems: Problem[] }> => {
  try {
    await run.result()
  } catch (e) {
    if (!(e instanceof WorkflowFailedError)) throw e
    // resolveInput's refusal comes wrapped in the failure of its activity
    const cause = e.cause instanceof ApplicationFailure ? e.cause : e.cause?.cause
    if (!(cause instanceof ApplicationFailure)) throw e
    return { type: cause.type ?? '', message: cause.message, problems: (cause.details ?? []) as Problem[] }
  }
  throw new Error(`${run.workflowId} did not fail`)
}

/** Activity ids in the order they were scheduled, from the history. */
export const scheduledActivities = async (run: RunHandle): Promise<string[]> =>
  ((await run.fetchHistory()).events ?? []).flatMap((e) => (e.activityTaskScheduledEventAttributes?.activityId == null ? [] : [e.activityTaskScheduledEventAttributes.activityId]))

/** Index of the event from which a run is to be done again; none is below 0. */
export type ResetPoint = (events: readonly HistoryEvent[]) => number

/**
 * Resets a run as the UI does, to the first workflow task that ended at or after a point of its history: that task and
 * all that follows is undone, and the server sends signals and updates from then on again. Returns the run that goes on.
 */
export const resetRun = async ({ client, server }: System, { workflowId }: RunHandle, pointOf: ResetPoint): Promise<RunHandle> => {
  const newest: RunHandle = client.workflow.getHandle(workflowId)
  const { runId } = await newest.describe()
  const events = (await newest.fetchHistory()).events ?? []
  const point = pointOf(events)
  const task = point < 0 ? undefined : events.slice(point).find((e) => e.workflowTaskCompletedEventAttributes != null)
  if (task === undefined) throw new Error(`${workflowId}: its history has no workflow task to reset to`)
  const request = { namespace: server.namespace, workflowExecution: { workflowId, runId }, workflowTaskFinishEventId: task.eventId ?? null, requestId: randomUUID(), reason: 'reset by a test' }
  await client.workflowService.resetWorkflowExecution(request)
  return newest
}

/** The text of the run page. */
export const pageOf = async (run: Pick<RunHandle, 'query'>): Promise<string> => (await run.query<{ currentDetails?: string }>('__temporal_workflow_metadata')).currentDetails ?? ''

/** Search attributes by name. */
export const attributesOf = async (run: RunHandle): Promise<Record<string, unknown>> =>
  Object.fromEntries((await run.describe()).typedSearchAttributes.getAll().map(({ key, value }) => [key.name, value]))

