import type { DecisionRecord } from '@cpt/contracts/activities'
import type { Deps } from './deps.ts'
import { canonical, sha256 } from './identity.ts'

/**
 * Keeps a decision with its inputs. The workflow uses only what this returns, so a changed formula or preset never
 * rewrites the decisions of a run under way. Kept by the run's chain, so that continue-as-new and a reset find it again;
 * other inputs (after a patch) are another decision.
 */
export const recordDecision =
  ({ store }: Pick<Deps, 'store'>) =>
  async (record: DecisionRecord<unknown>): Promise<{ output: unknown; uri: string }> => {
    const run = sha256(`${record.run.workflowId}/${record.run.firstRunId}`).slice(0, 32)
    const uri = `decisions/${run}/${record.key.replace(/[^a-zA-Z0-9._-]/g, '-')}-${sha256(canonical(record.inputs)).slice(0, 12)}.json`
    const won = await store.putIfAbsent(uri, Buffer.from(canonical(record)))
    if (won) return { output: record.output, uri }
    const kept = JSON.parse(Buffer.from((await store.get(uri)) ?? '').toString('utf8')) as DecisionRecord<unknown>
    return { output: kept.output, uri }
  }
