import type { ActivityOptions } from '@temporalio/workflow'
import { controlQueue, jobsQueue } from '@cpt/contracts/ids'

/**
 * A stage that watches a job: attempts without end, since the budget of failures is counted from end records; time
 * bounds only the silence of a watcher, because the job itself outlives it.
 */
export const clusterJob: ActivityOptions = {
  taskQueue: jobsQueue,
  startToCloseTimeout: '30 days',
  heartbeatTimeout: '10s',
  retry: { initialInterval: '1s', backoffCoefficient: 2, maximumInterval: '30s' },
  cancellationType: 'WAIT_CANCELLATION_COMPLETED',
}

/** Light work of the control worker: reading presets, keeping decisions, writing the report. */
export const light: ActivityOptions = {
  taskQueue: controlQueue,
  startToCloseTimeout: '5 minutes',
  retry: { initialInterval: '1s', backoffCoefficient: 2, maximumInterval: '30s' },
}
