import type { Config } from '@cpt/activities/config'
import { aborted, interruption } from '../interruption.ts'
import { readConfig } from '../config.ts'
import { startUp } from './start-up.ts'
import { startDetached } from './start-detached.ts'
import { portsOf, type UpFlags } from './up-flags.ts'
import type { UpRecord } from './up-record.ts'

const addresses = (record: UpRecord) => ({
  address: record.address,
  namespace: record.namespace,
  taskQueue: record.taskQueue,
  uiUrl: record.uiUrl,
  reportsUrl: record.reportsUrl,
  stateDir: record.stateDir,
  pids: { up: record.processes.up.pid, server: record.processes.server?.pid ?? null, worker: record.processes.worker?.pid ?? null },
})

const show = (record: UpRecord, config: Config, json: boolean): void => {
  if (json) return void process.stdout.write(`${JSON.stringify(addresses(record))}\n`)
  const start = record.uiUrl === null ? '' : `\n\nStart a run: ${record.uiUrl}/namespaces/${record.namespace}/workflows/start-workflow?taskQueue=${record.taskQueue}&workflowType=cptRun\n         or: npx cpt run --set name=my-run`
  const rows = [
    ['web UI', record.uiUrl === null ? null : `${record.uiUrl}/namespaces/${record.namespace}/workflows`],
    ['reports', record.reportsUrl],
    ['server', `${record.address}, namespace ${record.namespace}, task queue ${record.taskQueue}`],
    ['state', config.stateDir],
  ]
  for (const [name, value] of rows) if (value !== null) process.stdout.write(`${String(name).padEnd(8)} ${value}\n`)
  process.stdout.write(`${start.trimStart()}\n`)
}

const say = (line: string): void => void process.stderr.write(`cpt up: ${line}\n`)

/** Runs until Ctrl-C; with `--detach`, returns when another process does. */
export const up = async (flags: UpFlags): Promise<void> => {
  const config = readConfig({ stateDir: flags.state })
  if (flags.detach === true) return show(await startDetached(config, flags), config, flags.json === true)
  const cancel = interruption()
  const running = await startUp(config, { ports: portsOf(flags), say, cancel })
  show(running.record, config, flags.json === true)
  say('ready; Ctrl-C stops everything')
  await aborted(cancel)
  say('stopping the worker, jobs, report pages and server')
  await running.stop()
  say('stopped')
}
