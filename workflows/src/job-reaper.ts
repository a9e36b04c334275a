import { proxyActivities, setCurrentDetails, upsertSearchAttributes } from '@temporalio/workflow'
import type { ControlActivities, ReapReport } from '@cpt/contracts/activities'
import { light } from './activity-options.ts'
import { attributes } from './attributes.ts'
import { reaperText } from './page.ts'

/** Stops jobs whose runs are closed, as after a termination from the UI, and trials whose sweep is. Runs on a schedule; may be started by hand. */
export async function jobReaper(): Promise<ReapReport> {
  upsertSearchAttributes([{ key: attributes.kind, value: 'jobReaper' }])
  setCurrentDetails('Looking for jobs whose runs are closed')
  // trials first: their jobs are stopped by themselves once they are told
  const trials = await proxyActivities<ControlActivities>({ ...light, activityId: 'reap-trials', summary: 'trials without a living sweep' }).reapTrials()
  const report = await proxyActivities<ControlActivities>({ ...light, activityId: 'reap-jobs', summary: 'jobs without a living run' }).reapJobs()
  setCurrentDetails(reaperText(report, trials.cancelled))
  return report
}
