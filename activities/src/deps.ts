import type { Client } from '@temporalio/client'
import type { Logger } from 'pino'
import type { ArtifactStore } from './artifact-store/artifact-store.ts'
import type { Config } from './config.ts'
import type { JobRunner } from './job-runner/job-runner.ts'

/** What activities stand on; created once a worker. */
export interface Deps {
  config: Config
  store: ArtifactStore & { root: string }
  runners: Readonly<Record<'local', JobRunner>>
  client: Client
  log: Logger
}
