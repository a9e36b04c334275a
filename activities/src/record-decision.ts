import { Context } from '@temporalio/activity'
import type { DecisionRecord } from '@cpt/contracts/activities'
import type { Deps } from './deps.ts'
import { canonical, sha256 } from './identity.ts'

/**
 * Keeps a decision with its inputs. The workflow uses only what this returns, so a changed formula or preset never
 * rewrites the decisions of a run under way (replay compares types and ids, not inputs).
 */
export const recordDecision =
  ({ store }: Pick<Deps, 'store'>) =>
  async (record: DecisionRecord<unknown>): Promise<{ output: unknown; uri: string }> => {
    const { workflowExecution } = Context.current().info
    const run = sha256(`${workflowExecution?.workflowId}/${workflowExecution?.runId}`).slice(0, 32)
    const uri = `decisions/${run}/${record.key.replace(/[^a-zA-Z0-9._-]/g, '-')}.json`
    const won = await store.putIfAbsent(uri, Buffer.from(canonical(record)))
    if (won) return { output: record.output, uri }
    const kept = JSON.parse(Buffer.from((await store.get(uri)) ?? '').toString('utf8')) as DecisionRecord<unknown>
    return { output: kept.output, uri }
  }
