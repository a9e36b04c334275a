import { spawn, type ChildProcess } from 'node:child_process'
import { appendFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { ServiceSpec } from '@cpt/cli/up/supervise'

/** A process of the system under test. Nothing starts it again: a test that kills it decides when it comes back. */
export interface Service {
  readonly pid: number
  /** Ends it without warning, as a crash would. */
  kill(): Promise<void>
  /** TERM, and KILL when its grace is over. */
  stop(): Promise<void>
}

const started = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of started) child.kill('SIGKILL')
})

/** Starts a process of the CLI's own making and resolves when it does its work; fails with its last words. */
export const startService = async (spec: ServiceSpec): Promise<Service> => {
  const child = spawn(spec.program, spec.args, { env: spec.env, stdio: ['ignore', 'pipe', 'pipe'] })
  started.add(child)
  const tail: string[] = []
  const watchers: ((line: string) => void)[] = []
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      appendFileSync(spec.logFile, `${line}\n`)
      tail.push(line.slice(0, 500))
      if (tail.length > 20) tail.shift()
      if (stream === child.stdout) for (const see of watchers) see(line)
    })
  }
  const gone = new AbortController()
  const exited = new Promise<string>((resolve) => {
    const end = (how: string) => {
      started.delete(child)
      gone.abort()
      resolve(how)
    }
    child.once('error', (e) => end(`cannot be started: ${e.message}`))
    child.once('exit', (code, signal) => end(`ended with ${signal ?? `exit code ${code ?? '?'}`}`))
  })
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill(signal)
    const patience = setTimeout(() => child.kill('SIGKILL'), spec.graceMs)
    await exited
    clearTimeout(patience)
  }
  const service: Service = { pid: child.pid ?? 0, kill: () => end('SIGKILL'), stop: () => end('SIGTERM') }

  const late = AbortSignal.timeout(spec.readyMs)
  const why = (what: string) => new Error(`${spec.name} ${what}; its last words:\n${tail.join('\n')}`)
  try {
    await Promise.race([
      spec.ready((see) => watchers.push(see), AbortSignal.any([gone.signal, late])),
      exited.then((how) => Promise.reject(why(how))),
      new Promise<never>((_, reject) => late.addEventListener('abort', () => reject(why(`was not ready within ${spec.readyMs / 1000} s`)))),
    ])
  } catch (e) {
    await service.stop()
    throw e
  }
  return service
}
