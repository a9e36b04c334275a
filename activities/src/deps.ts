import type { Client } from '@temporalio/client'
import type { Logger } from 'pino'
import type { RunnerName } from '@cpt/contracts/job'
import type { ArtifactStore } from './artifact-store/artifact-store.ts'
import type { Config } from './config.ts'
import type { JobRunner } from './job-runner/job-runner.ts'

/** What activities stand on; created once a worker. */
export interface Deps {
  config: Config
  store: ArtifactStore
  /** Folder of jobs and askers, on a disk that workers and jobs share; the store itself may be remote. */
  workDir: string
  /** The runners that this worker's configuration knows. */
  runners: Readonly<Partial<Record<RunnerName, JobRunner>>>
  client: Client
  log: Logger
}
