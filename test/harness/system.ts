import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Client } from '@temporalio/client'
import { loadConfig, type Config } from '@cpt/activities/config'
import { connect, type Server } from '@cpt/cli/connect'
import { choosePorts } from '@cpt/cli/up/ports'
import { stopJobs } from '@cpt/cli/up/stop-jobs'
import { temporalServer } from '@cpt/cli/up/temporal-server'
import { worker as workerSpec } from '@cpt/cli/up/worker'
import { startService, type Service } from './service.ts'

/** Long enough for the outages that tests make; a job that a killed test leaves behind saves and ends after it. */
const leaseSeconds = 60

/** A real development server on its own database, and the real worker process, in a state folder of their own. */
export interface System {
  readonly client: Client
  readonly server: Server
  readonly config: Config
  readonly stateDir: string
  readonly storeDir: string
  /** The worker that runs now; null between a kill and the next start. */
  workerPid: () => number | null
  startWorker: () => Promise<void>
  killWorker: () => Promise<void>
  stopWorker: () => Promise<void>
  killServer: () => Promise<void>
  /** On the same database and port. */
  startServer: () => Promise<void>
  /** Ends jobs, worker and server and removes the state folder (kept when CPT_TEST_KEEP is set). */
  stop: () => Promise<void>
}

export interface SystemOptions {
  /** Further roots that inputs may name. */
  roots?: Record<string, string>
  /** Fills the state folder before anything starts. */
  prepare?: (stateDir: string) => Promise<void>
  /** Further settings of the worker and its jobs; `stateDir` is known by then. */
  settings?: (stateDir: string) => Record<string, string>
  /** Dynamic configuration of the server, as limits that a small run would never reach. */
  serverSettings?: Record<string, string | number>
}

export const startSystem = async ({ roots = {}, prepare, settings = () => ({}), serverSettings = {} }: SystemOptions = {}): Promise<System> => {
  const stateDir = await mkdtemp(join(tmpdir(), 'cpt-e2e-'))
  const undo: (() => Promise<unknown>)[] = []
  const stop = async (): Promise<void> => {
    const failed: unknown[] = []
    for (const step of undo.splice(0).reverse()) await Promise.resolve().then(step).catch((e: unknown) => failed.push(e))
    if (process.env['CPT_TEST_KEEP'] === undefined) await rm(stateDir, { recursive: true, force: true, maxRetries: 5 })
    if (failed.length > 0) throw new AggregateError(failed, 'the system under test did not stop cleanly')
  }
  try {
    for (const folder of ['logs', 'tmp']) await mkdir(join(stateDir, folder))
    await prepare?.(stateDir)
    // settings of the person who runs the tests must not reach the system under test
    const own = { CPT_ROOTS: JSON.stringify(roots), CPT_LEASE_SECONDS: String(leaseSeconds), ...settings(stateDir) }
    const config = loadConfig({ PATH: process.env['PATH'], HOME: process.env['HOME'], CPT_PYTHON: process.env['CPT_PYTHON'], CPT_STATE: stateDir, ...own })
    const ports = await choosePorts(stateDir, {}, false)
    const server: Server = { address: `127.0.0.1:${ports.server}`, namespace: 'cpt', taskQueue: 'cpt', uiUrl: `http://127.0.0.1:${ports.ui}`, reportsUrl: null }
    const plain = await temporalServer(config, server, ports, () => undefined)
    const serverSpec = { ...plain, args: [...plain.args, ...Object.entries(serverSettings).flatMap(([key, value]) => ['--dynamic-config-value', `${key}=${JSON.stringify(value)}`])] }
    const ofWorker = workerSpec(config, server)
    const workerEnv = {
      ...ofWorker.env, CPT_QUEUE: 'cpt', CPT_JOBS_QUEUE: 'cpt-jobs', CPT_SLOTS: '8', CPT_LOG_LEVEL: 'debug',
      // the socket of a warm parent lies there: this system shares none with whoever else works on this machine
      TMPDIR: join(stateDir, 'tmp'),
      ...own,
    }
    const running: { server: Service | null; worker: Service | null } = { server: null, worker: null }
    const startServer = async (): Promise<void> => void (running.server = await startService(serverSpec))
    const startWorker = async (): Promise<void> => void (running.worker = await startService({ ...ofWorker, env: workerEnv }))
    const end = async (name: 'server' | 'worker', how: 'kill' | 'stop'): Promise<void> => {
      await running[name]?.[how]()
      running[name] = null
    }
    undo.push(() => end('server', 'stop'))
    await startServer()
    undo.push(() => end('worker', 'stop'))
    await startWorker()
    const session = await connect(config, server)
    undo.push(() => session.close(), () => stopJobs(config))
    return {
      client: session.client, server, config, stateDir, storeDir: join(stateDir, 'store'),
      workerPid: () => running.worker?.pid ?? null,
      startWorker, killWorker: () => end('worker', 'kill'), stopWorker: () => end('worker', 'stop'),
      startServer, killServer: () => end('server', 'kill'),
      stop,
    }
  } catch (e) {
    await stop()
    throw e
  }
}
