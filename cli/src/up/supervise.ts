import { spawn, type ChildProcess } from 'node:child_process'
import { createWriteStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { identify, type ProcessIdentity } from '../../../infra/bootstrap/process-identity.mjs'
import { aborted } from '../interruption.ts'
import { plainText } from '../plain-text.ts'
import { backoffMs } from './backoff.ts'

const healthyMs = 60_000

export interface ServiceSpec {
  name: string
  program: string
  args: readonly string[]
  env: Record<string, string>
  logFile: string
  /** Resolves when the process does its work; `nextLine` gives its standard output. Rejects or hangs otherwise. */
  ready: (lines: (see: (line: string) => void) => void, signal: AbortSignal) => Promise<void>
  readyMs: number
  graceMs: number
}

export interface Service {
  restarts(): number
  stop(): Promise<void>
}

export type ServiceEvent = { what: 'spawned'; identity: ProcessIdentity } | { what: 'died'; how: string; againInMs: number } | { what: 'restarted' } | { what: 'failed'; message: string }

interface Running {
  child: ChildProcess
  identity: ProcessIdentity | null
  exited: Promise<string>
  ready: Promise<void>
}

/** Starts a process, resolves when it is ready, and starts it anew, ever more patiently, whenever it dies. */
export const supervise = async (spec: ServiceSpec, onEvent: (event: ServiceEvent) => void, cancel: AbortSignal): Promise<Service> => {
  const stopping = new AbortController()
  const isStopping = () => stopping.signal.aborted
  cancel.addEventListener('abort', () => stopping.abort())
  const start = (): Running => {
    const log = createWriteStream(spec.logFile, { flags: 'a' })
    const tail: string[] = []
    // a group of its own: Ctrl-C in the terminal reaches only us, and we stop things in order
    const child = spawn(spec.program, spec.args, { env: spec.env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    const watchers: ((line: string) => void)[] = []
    for (const stream of [child.stdout, child.stderr]) {
      stream.pipe(log, { end: false })
      // a service whose log cannot be kept, as on a full disk, is still a service; the pipe that broke had paused it
      log.on('error', () => stream.resume())
      createInterface({ input: stream }).on('line', (line) => {
        tail.push(plainText(line))
        if (tail.length > 8) tail.shift()
        if (stream === child.stdout) for (const see of watchers) see(line)
      })
    }
    child.once('close', () => log.end())
    const identity = child.pid === undefined ? null : identify(child.pid)
    if (identity !== null) onEvent({ what: 'spawned', identity })
    const gone = new AbortController()
    const exited = new Promise<string>((resolve) => {
      const end = (how: string) => {
        gone.abort()
        resolve(how)
      }
      child.once('error', (error) => end(`cannot be started: ${error.message}`))
      // "exit", not "close": a job that outlives its worker may hold the pipe open
      child.once('exit', (code, signal) => end(signal === null ? `ended with exit code ${code ?? '?'}` : `was ended by ${signal}`))
    })
    const late = AbortSignal.timeout(spec.readyMs)
    const why = (what: string) => new Error(`${spec.name} ${what}; its last words (${spec.logFile}):\n${tail.map((line) => `  ${line.slice(0, 300)}`).join('\n')}`)
    const ready = Promise.race([
      spec.ready((see) => watchers.push(see), AbortSignal.any([gone.signal, late, stopping.signal])),
      exited.then((how) => Promise.reject(why(how))),
      aborted(stopping.signal).then(() => Promise.reject(why('was stopped while it started'))),
      new Promise<never>((_, reject) => late.addEventListener('abort', () => reject(why(`was not ready within ${spec.readyMs / 1000} s`)))),
    ])
    ready.catch(() => undefined)
    return { child, identity, exited, ready }
  }

  const end = async ({ child, exited, identity }: Running): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null || identity === null) return
    child.kill('SIGTERM')
    const patience = new AbortController()
    const kill = sleep(spec.graceMs, undefined, { signal: patience.signal }).then(() => child.kill('SIGKILL'), () => undefined)
    await exited
    patience.abort()
    await kill
  }

  let current = start()
  let restarts = 0
  try {
    await current.ready
  } catch (error) {
    await end(current)
    throw error
  }

  const guard = async (): Promise<void> => {
    for (let deaths = 0; !isStopping(); ) {
      const bornMs = performance.now()
      const how = await current.exited
      if (isStopping()) return
      deaths = performance.now() - bornMs > healthyMs ? 1 : deaths + 1
      const againInMs = backoffMs(deaths)
      onEvent({ what: 'died', how, againInMs })
      await sleep(againInMs, undefined, { signal: stopping.signal }).catch(() => undefined)
      // stop() may have been called while we slept
      if (isStopping()) return
      current = start()
      restarts += 1
      try {
        await current.ready
        onEvent({ what: 'restarted' })
      } catch (error) {
        if (error instanceof Error && !isStopping()) onEvent({ what: 'failed', message: error.message })
        await end(current)
      }
    }
  }
  const guarding = guard()

  return {
    restarts: () => restarts,
    stop: async () => {
      stopping.abort()
      await end(current)
      await guarding
    },
  }
}
