import { mkdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { join } from 'node:path'
import type { Config } from '@cpt/activities/config'
import { tryLock } from '../../../infra/bootstrap/file-lock.mjs'
import { identify, isAlive, type ProcessIdentity } from '../../../infra/bootstrap/process-identity.mjs'
import { CliError } from '../cli-error.ts'
import { namedServer } from '../config.ts'
import { connect, type Server } from '../connect.ts'
import { register } from '../register.ts'
import { choosePorts, rememberPorts, type Ports } from './ports.ts'
import { serveReports } from './report-pages.ts'
import { stopJobs } from './stop-jobs.ts'
import { supervise, type ServiceEvent, type ServiceSpec } from './supervise.ts'
import { temporalServer } from './temporal-server.ts'
import { lockPath, readUpRecord, removeUpRecord, writeUpRecord, type UpRecord } from './up-record.ts'
import { worker } from './worker.ts'

export interface UpOptions {
  ports: Partial<Ports>
  say: (line: string) => void
  /** Aborting stops what has been started so far. */
  cancel: AbortSignal
}

export interface Up {
  record: UpRecord
  stop(): Promise<void>
}

/** After a `cpt up` was killed its server may live on; two servers on one database would destroy it. */
const endLeftovers = async (stateDir: string, say: (line: string) => void): Promise<void> => {
  const left = readUpRecord(stateDir)
  if (left === null) return
  for (const [name, leftover] of Object.entries({ worker: left.processes.worker, server: left.processes.server })) {
    if (leftover === null || !isAlive(leftover)) continue
    say(`an earlier cpt up was killed; stopping the ${name} it left (process ${leftover.pid})`)
    await endProcess(leftover, 15_000)
  }
  removeUpRecord(stateDir)
}

/** TERM, then KILL after `graceMs`; resolves when exactly this process is gone. */
export const endProcess = async (target: ProcessIdentity, graceMs: number): Promise<void> => {
  const deadlineMs = performance.now() + graceMs
  const send = (signal: NodeJS.Signals) => {
    if (isAlive(target)) process.kill(target.pid, signal)
  }
  for (send('SIGTERM'); isAlive(target); await sleep(50)) if (performance.now() > deadlineMs) send('SIGKILL')
}

const tell = (name: string, say: (line: string) => void, event: ServiceEvent): void => {
  switch (event.what) {
    case 'spawned':
      return
    case 'died':
      return say(`${name} ${event.how}; starting it again${event.againInMs >= 1000 ? ` in ${event.againInMs / 1000} s` : ''}`)
    case 'restarted':
      return say(`${name} is back`)
    case 'failed':
      return say(`${name} could not be started again: ${event.message}`)
  }
}

/**
 * Server (unless the environment names one), worker and report pages, kept running until stop(). One per state folder,
 * held by a lock; what was started is stopped in reverse order, also when a later part fails to start.
 */
export const startUp = async (config: Config, { ports: given, say, cancel }: UpOptions): Promise<Up> => {
  const { stateDir } = config
  mkdirSync(join(stateDir, 'logs'), { recursive: true })
  const lock = tryLock(lockPath(stateDir))
  if (lock.release === undefined) throw new CliError('conflict', `cpt up runs already for ${stateDir} (process ${lock.holder.pid})`, 'Use it as it is (`npx cpt status`), or stop it with `npx cpt down`.')
  const undo: (() => Promise<unknown>)[] = []
  const stop = async () => {
    for (const step of undo.splice(0).reverse()) await step().catch((error: unknown) => say(String(error)))
  }
  undo.push(() => Promise.resolve(lock.release()))
  try {
    await endLeftovers(stateDir, say)
    const own = namedServer() === null
    const ports = await choosePorts(stateDir, given, stateDir === join(config.home, '.cpt'))
    const server: Server = {
      address: own ? `127.0.0.1:${ports.server}` : config.temporal.address,
      namespace: config.temporal.namespace,
      taskQueue: config.queues.control,
      uiUrl: own ? `http://127.0.0.1:${ports.ui}` : config.temporal.uiUrl,
      reportsUrl: `http://127.0.0.1:${ports.reports}`,
    }
    const processes: { server: ProcessIdentity | null; worker: ProcessIdentity | null } = { server: null, worker: null }
    let ready = false
    const record = (): UpRecord => ({
      format: 'cpt-up/1',
      ...server,
      reportsUrl: `http://127.0.0.1:${ports.reports}`,
      stateDir,
      ports: own ? ports : null,
      processes: { up: identify() ?? { pid: process.pid, start: '' }, ...processes },
      ready,
    })
    const keep = async (name: 'server' | 'worker', spec: ServiceSpec) => {
      const onEvent = (event: ServiceEvent) => {
        tell(spec.name, say, event)
        // on record before it is ready: if we are killed now, the next cpt up finds it
        if (event.what === 'spawned') processes[name] = event.identity
        writeUpRecord(record())
      }
      const service = await supervise(spec, onEvent, cancel)
      undo.push(() => service.stop())
    }

    undo.push(() => Promise.resolve(removeUpRecord(stateDir)))
    if (own) {
      const spec = await temporalServer(config, server, ports, say)
      say(`starting the Temporal server at ${server.address}`)
      await keep('server', spec)
      rememberPorts(stateDir, ports)
    } else {
      const session = await connect(config, server)
      await register(session.connection, server.namespace).finally(() => session.close())
    }
    const pages = await serveReports(config.reportsDir, ports.reports)
    undo.push(() => pages.stop())
    if (own)
      undo.push(async () => {
        const stopped = await stopJobs(config)
        if (stopped > 0) say(`${stopped} running ${stopped === 1 ? 'job' : 'jobs'} saved and stopped`)
      })
    say('starting the worker')
    await keep('worker', worker(config, server))
    cancel.throwIfAborted()
    ready = true
    writeUpRecord(record())
    return { record: record(), stop }
  } catch (error) {
    await stop()
    throw error
  }
}
