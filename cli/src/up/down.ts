import { isAlive } from '../../../infra/bootstrap/process-identity.mjs'
import { readConfig } from '../config.ts'
import { endProcess } from './start-up.ts'
import { stopJobs } from './stop-jobs.ts'
import { readUpRecord, removeUpRecord } from './up-record.ts'

const graceMs = 90_000

/** Stops a running `cpt up`, or what a killed one has left. */
export const down = async (flags: { state?: string }): Promise<void> => {
  const config = readConfig({ stateDir: flags.state })
  const record = readUpRecord(config.stateDir)
  if (record === null) return void process.stdout.write(`nothing is running for ${config.stateDir}\n`)
  const { up, worker, server } = record.processes
  if (isAlive(up)) {
    process.stdout.write(`stopping cpt up (process ${up.pid})\n`)
    await endProcess(up, graceMs)
  }
  // only a cpt up that was killed leaves anything
  if (worker !== null && isAlive(worker)) await endProcess(worker, graceMs)
  await stopJobs(config)
  if (server !== null && isAlive(server)) await endProcess(server, graceMs)
  removeUpRecord(config.stateDir)
  process.stdout.write('stopped\n')
}
