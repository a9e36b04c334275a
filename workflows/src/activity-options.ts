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

/**
 * Light work of the control worker: reading presets, keeping decisions, writing the report. It heartbeats too: a server
 * that loses the answer to a poll counts the task as started, and only silence tells that nobody has it.
 */
export const light: ActivityOptions = {
  taskQueue: controlQueue,
  startToCloseTimeout: '1 hour',
  heartbeatTimeout: '15s',
  retry: { initialInterval: '1s', backoffCoefficient: 2, maximumInterval: '30s' },
}
