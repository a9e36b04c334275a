import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from '@cpt/activities/config'
import { CliError } from '../cli-error.ts'
import { environmentWith, workerProgram } from '../config.ts'
import type { Server } from '../connect.ts'
import type { ServiceSpec } from './supervise.ts'

const saysReady = (line: string): boolean => {
  if (!line.includes('"ready"')) return false
  try {
    const said: unknown = JSON.parse(line)
    return typeof said === 'object' && said !== null && 'ready' in said && said.ready === true
  } catch {
    return false
  }
}

/** The worker process, which says `{"ready":true}` once it polls. */
export const worker = (config: Config, server: Server): ServiceSpec => {
  const program = workerProgram(config)
  if (!existsSync(program)) throw new CliError('missing', `${program} is not built`, 'Run `npm run bootstrap`.')
  return {
    name: 'worker',
    program: process.execPath,
    args: ['--enable-source-maps', program],
    env: environmentWith({
      CPT_HOME: config.home,
      CPT_STATE: config.stateDir,
      TEMPORAL_ADDRESS: server.address,
      TEMPORAL_NAMESPACE: server.namespace,
      ...(server.uiUrl !== null ? { CPT_UI_URL: server.uiUrl } : {}),
      ...(server.reportsUrl !== null ? { CPT_REPORTS_URL: server.reportsUrl } : {}),
    }),
    logFile: join(config.stateDir, 'logs', 'worker.log'),
    ready: (lines, signal) =>
      new Promise((resolve, reject) => {
        signal.addEventListener('abort', () => reject(new Error('worker: not ready')))
        lines((line) => {
          if (saysReady(line)) resolve()
        })
      }),
    readyMs: 120_000,
    graceMs: 30_000,
  }
}
