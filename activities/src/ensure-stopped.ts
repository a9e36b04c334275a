import { Context } from '@temporalio/activity'
import type { ControlActivities } from '@cpt/contracts/activities'
import { askerOf, jobOfAsker, withdrawAsker } from './claims.ts'
import type { Deps } from './deps.ts'

const graceMs = 20_000

/** After a stage was left by any way but success: withdraws the line as asker, and stops its job if nobody else wants it. */
export const ensureStopped =
  ({ config, store, runners }: Pick<Deps, 'config' | 'store' | 'runners'>): ControlActivities['ensureStopped'] =>
  async ({ key }) => {
    const { workflowExecution } = Context.current().info
    const asker = askerOf(workflowExecution?.workflowId ?? '', workflowExecution?.runId ?? '', key)
    const job = await jobOfAsker(store.root, asker)
    if (job === null) return { stopped: 0 }
    const { othersAsk } = await withdrawAsker(job, asker, config.leaseSeconds)
    if (othersAsk || (await runners.local.look(job)).state !== 'running') return { stopped: 0 }
    await runners.local.stop(job, graceMs)
    return { stopped: 1 }
  }
