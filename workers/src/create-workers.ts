import { createControlActivities, createStageActivities } from '@cpt/activities/activities'
import { openStore } from '@cpt/activities/artifact-store/open-store'
import type { Config } from '@cpt/activities/config'
import type { Deps } from '@cpt/activities/deps'
import { localRunner } from '@cpt/activities/job-runner/local'
import { configuredSlurm } from '@cpt/activities/job-runner/slurm'
import { warmParent } from '@cpt/activities/job-runner/warm-parent'
import { Client, type Connection } from '@temporalio/client'
import { type NativeConnection, Worker, type WorkflowBundleOption } from '@temporalio/worker'
import type { Logger } from 'pino'

/** Everything activities stand on, from the configuration. */
export const createDeps = (config: Config, connection: Connection, log: Logger): Deps => {
  const slurm = configuredSlurm(config)
  return {
    config,
    store: openStore(config),
    workDir: config.workDir,
    runners: {
      local: localRunner({
        python: config.python, mlDir: `${config.home}/ml`, env: config.jobEnv,
        warm: config.warmIdleSeconds === 0 ? null : warmParent({ python: config.python, mlDir: `${config.home}/ml`, env: config.jobEnv, folder: `${config.stateDir}/warm`, idleSeconds: config.warmIdleSeconds }),
      }),
      ...(slurm === null ? {} : { slurm }),
    },
    client: new Client({ connection, namespace: config.temporal.namespace }),
    log,
  }
}

/** `control` runs workflows and light activities; `jobs` watches jobs, as many at once as it has slots. */
export const createWorkers = async (connection: NativeConnection, deps: Deps, workflowBundle: WorkflowBundleOption): Promise<Worker[]> => {
  const { config } = deps
  const common = { connection, namespace: config.temporal.namespace, shutdownGraceTime: '1s' } as const
  return [
    await Worker.create({ ...common, taskQueue: config.queues.control, workflowBundle, activities: createControlActivities(deps), maxCachedWorkflows: 200 }),
    await Worker.create({
      ...common,
      taskQueue: config.queues.jobs,
      activities: createStageActivities(deps),
      maxConcurrentActivityTaskExecutions: config.slots,
      // heartbeats carry step, loss and ETA to whoever watches
      defaultHeartbeatThrottleInterval: '1s',
      maxHeartbeatThrottleInterval: '1s',
    }),
  ]
}
