import { spawn } from 'node:child_process'
import { mkdirSync, openSync, closeSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Config } from '@cpt/activities/config'
import { CliError } from '../cli-error.ts'
import { cliProgram, environmentWith } from '../config.ts'
import { plainText } from '../plain-text.ts'
import type { UpFlags } from './up-flags.ts'
import { runningUp, type UpRecord } from './up-record.ts'

const patienceMs = 420_000

/** A `cpt up` that goes on after this process; resolves when it is ready. */
export const startDetached = async (config: Config, flags: UpFlags = {}): Promise<UpRecord> => {
  mkdirSync(join(config.stateDir, 'logs'), { recursive: true })
  const logFile = join(config.stateDir, 'logs', 'up.log')
  const log = openSync(logFile, 'w')
  const ports = [['--port', flags.port], ['--ui-port', flags.uiPort], ['--reports-port', flags.reportsPort]] as const
  const args = [cliProgram(config), 'up', ...ports.flatMap(([flag, port]) => (port === undefined ? [] : [flag, String(port)]))]
  const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', log, log], env: environmentWith({ CPT_STATE: config.stateDir }) })
  closeSync(log)
  child.once('error', () => undefined)
  for (const deadlineMs = performance.now() + patienceMs; performance.now() < deadlineMs; await sleep(100)) {
    const record = runningUp(config.stateDir)
    if (record !== null && record.processes.up.pid === child.pid) {
      child.unref()
      return record
    }
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) break
  }
  child.kill('SIGTERM')
  throw new CliError('failed', `cpt up did not start; its last words:\n${plainText(readFileSync(logFile, 'utf8')).trim().split('\n').slice(-8).join('\n')}`, `The whole log is ${logFile}.`)
}
