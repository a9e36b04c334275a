import { WorkflowNotFoundError, type Client } from '@temporalio/client'
import type { ControlActivities } from '@cpt/contracts/activities'
import { trialMemo } from '@cpt/contracts/ids'
import type { Deps } from '../deps.ts'

/** How trials stand that are no children of the asking execution, and whose they are. */
export const trialStates =
  ({ client }: Pick<Deps, 'client'>): ControlActivities['trialStates'] =>
  async (ids) =>
    await Promise.all(ids.map(async (id) => {
      try {
        const { status, memo } = await client.workflow.getHandle(id).describe()
        return { id, isOpen: status.name === 'RUNNING', chain: chainIn(memo) }
      } catch (e) {
        if (!(e instanceof WorkflowNotFoundError)) throw e
        return { id, isOpen: false, chain: null }
      }
    }))

/**
 * Cancels trials whose sweep is closed in any way but completed (that one may have left parked trials to a person), or
 * whose id another sweep has taken. A trial is open for a while after its sweep was cancelled: it is told a second time,
 * which changes nothing.
 */
export const reapTrials =
  ({ client }: Pick<Deps, 'client'>): ControlActivities['reapTrials'] =>
  async () => {
    const cancelled: string[] = []
    let looked = 0
    for await (const trial of client.workflow.list({ query: `CptKind = 'sweepTrial' AND ExecutionStatus = 'Running'` })) {
      looked += 1
      const why = await whyUnwanted(client, sweepOf(trial.workflowId), chainIn(trial.memo))
      if (why === null) continue
      await client.workflow.getHandle(trial.workflowId, trial.runId).cancel()
      cancelled.push(`${trial.workflowId}: ${why}`)
    }
    return { looked, cancelled }
  }

const chainIn = (memo: Record<string, unknown> | undefined): string | null => {
  const chain = memo?.[trialMemo]
  return typeof chain === 'string' ? chain : null
}

const sweepOf = (trialId: string): string => trialId.replace(/\/trial-\d+$/, '')

const whyUnwanted = async (client: Client, sweepId: string, chain: string | null): Promise<string | null> => {
  try {
    const { status, raw } = await client.workflow.getHandle(sweepId).describe()
    const current = raw.workflowExecutionInfo?.firstRunId
    if (chain !== null && current !== undefined && current !== null && current !== '' && current !== chain) return `another run has the id ${sweepId}`
    return ['FAILED', 'CANCELLED', 'TERMINATED', 'TIMED_OUT'].includes(status.name) ? `${sweepId} is ${status.name.toLowerCase()}` : null
  } catch (e) {
    // forgotten after its retention: it may have completed
    if (e instanceof WorkflowNotFoundError) return null
    throw e
  }
}
