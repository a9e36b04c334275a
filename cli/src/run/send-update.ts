import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { WorkflowHandle } from '@temporalio/client'
import { CliError, messageOf } from '../cli-error.ts'

const tries = 6
const pauseMs = 500

export interface UpdateOptions {
  /** After a refusal: whether it came from a moment ago, so that it is worth asking again. */
  isOutdated?: () => Promise<boolean>
  /** All tries carry it, so that an update whose answer was lost acts once and its first answer comes back. */
  updateId?: string
}

/**
 * Sends an update to a run until it is answered. What failed on the way, or met a run that was just being continued as
 * another, is sent again; a refusal only where `isOutdated` says so. Throws a CliError that says why it was not taken.
 */
export const sendUpdate = async (handle: Pick<WorkflowHandle, 'workflowId' | 'executeUpdate'>, name: string, argument: unknown, { isOutdated = () => Promise.resolve(false), updateId = randomUUID() }: UpdateOptions = {}): Promise<string> => {
  const { ApplicationFailure, ServiceError, WorkflowNotFoundError, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError } = await import('@temporalio/client')
  const { workflowId } = handle
  /** The run was closed between taking the update and answering it, as when it is continued as another. */
  const wasCut = (error: Error): boolean => error.cause instanceof ApplicationFailure && error.cause.type === 'AcceptedUpdateCompletedWorkflow'
  for (let n = 1; ; n++) {
    try {
      const answer = await handle.executeUpdate<unknown, [unknown]>(name, { args: [argument], updateId })
      return typeof answer === 'string' ? answer : `${workflowId}: ${name} accepted`
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) throw new CliError('failed', `${workflowId} takes no ${name} any more: ${messageOf(error)}`, '`cpt status` shows how it ended.')
      const refused = error instanceof WorkflowUpdateFailedError
      if (!refused && !(error instanceof ServiceError) && !(error instanceof WorkflowUpdateRPCTimeoutOrCancelledError)) throw error
      if (n === tries || (refused && !wasCut(error) && !(await isOutdated()))) {
        throw new CliError('failed', `${workflowId} did not take ${name}: ${messageOf(error.cause ?? error)}`, '`cpt status` shows what it does, and what waits for a decision.')
      }
      await sleep(pauseMs)
    }
  }
}
