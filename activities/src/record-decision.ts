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
  async (record: DecisionRecord<unknown>): Promise<{ output: unknown; uri: string; sha256: string }> => {
    const run = sha256(`${record.run.workflowId}/${record.run.firstRunId}`).slice(0, 32)
    const uri = `decisions/${run}/${record.key.replace(/[^a-zA-Z0-9._-]/g, '-')}-${sha256(canonical(record.inputs)).slice(0, 12)}.json`
    const mine = Buffer.from(canonical(record))
    if (await store.putIfAbsent(uri, mine)) return { output: record.output, uri, sha256: sha256(mine) }
    const held = Buffer.from((await store.get(uri)) ?? '')
    const kept = JSON.parse(held.toString('utf8')) as DecisionRecord<unknown>
    return { output: kept.output, uri, sha256: sha256(held) }
  }
