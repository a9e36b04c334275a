import { setTimeout as sleep } from 'node:timers/promises'
import { defaultPayloadConverter } from '@temporalio/common'
import type { WorkflowExecutionDescription } from '@temporalio/client'
import type { LiveProgress, RunProgress } from '@cpt/contracts/cpt-run'
import type { Session } from '../connect.ts'

const answerMs = 5_000
const deepest = 3

/** What can be told of a run at this moment; `progress` is null while no worker answers. */
export interface Sight {
  type: string
  status: string
  runId: string
  progress: RunProgress | null
  live: LiveProgress[]
}

const isLive = (value: unknown): value is LiveProgress => typeof value === 'object' && value !== null && 'phase' in value && 'done' in value && 'key' in value

/** The last heartbeats of a run's activities, those of its children too: fresher than what the workflow itself knows. */
const heartbeats = async (session: Session, description: WorkflowExecutionDescription, depth = 0): Promise<LiveProgress[]> => {
  const own = (description.raw.pendingActivities ?? []).flatMap((activity) =>
    (activity.heartbeatDetails?.payloads ?? []).slice(0, 1).flatMap((payload) => {
      const value: unknown = defaultPayloadConverter.fromPayload(payload)
      return isLive(value) ? [value] : []
    }),
  )
  if (depth === deepest) return own
  const children = await Promise.all(
    (description.raw.pendingChildren ?? []).map(async ({ workflowId }) => {
      const child = await session.client.workflow.getHandle(workflowId ?? '').describe().catch(() => null)
      return child === null ? [] : (await heartbeats(session, child, depth + 1)).map((live) => ({ ...live, key: `${nameWithin(workflowId ?? '', description.workflowId)}: ${live.key}` }))
    }),
  )
  return [...own, ...children.flat()]
}

/** What a child is called on the page of its parent: `trial-3` for sweep/x/trial-3. */
const nameWithin = (child: string, parent: string): string => (child.startsWith(`${parent}/`) ? child.slice(parent.length + 1) : child)

/** Asks once. Throws when the server cannot be asked. */
export const look = async (session: Session, workflowId: string): Promise<Sight> => {
  const handle = session.client.workflow.getHandle(workflowId)
  const description = await session.connection.withDeadline(Date.now() + answerMs, () => handle.describe())
  const answer = session.connection.withDeadline(Date.now() + answerMs, () => handle.query<RunProgress>('progress')).catch(() => null)
  // the deadline covers the call, not the wait for a connection
  const progress = await Promise.race([answer, sleep(answerMs + 1000, null, { ref: false })])
  const live = await heartbeats(session, description)
  return { type: description.type, status: description.status.name, runId: description.runId, progress, live: live.length > 0 ? live : progress?.live ? [progress.live] : [] }
}
