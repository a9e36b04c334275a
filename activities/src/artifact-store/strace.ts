import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

/** A system call: its name, and the how-manieth of that name it is in its thread. */
export interface SystemCall {
  name: string
  nth: number
  line: string
}

/** Follows one thread with strace from here on, with further arguments; resolves once it is attached. `done` gives what it wrote. */
export const traceThread = async (thread: string, outFile: string, args: string[]): Promise<{ done: Promise<SystemCall[]> }> => {
  const child = spawn('strace', ['-p', thread, '-y', '-o', outFile, '-e', 'trace=%file,%desc', ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  const failed = new Promise<never>((_, reject) => child.once('error', (e) => reject(new Error(`strace cannot be started (${e.message}): as root on Debian or Ubuntu, apt-get install strace`))))
  const exited = once(child, 'exit')
  child.stderr.on('data', (data: Buffer) => (said += data.toString('utf8')))
  while (!said.includes('attached')) {
    await Promise.race([failed, delay(5)])
    if (child.exitCode !== null) throw new Error(`strace could not follow thread ${thread}: ${said}`)
  }
  failed.catch(() => undefined)
  return { done: exited.then(async () => callsIn(await readFile(outFile, 'utf8'))) }
}

const callsIn = (trace: string): SystemCall[] => {
  const counts = new Map<string, number>()
  return trace.split('\n').flatMap((line) => {
    const name = /^([a-z0-9_]+)\(/.exec(line)?.[1]
    if (name === undefined) return []
    counts.set(name, (counts.get(name) ?? 0) + 1)
    return [{ name, nth: counts.get(name) ?? 0, line }]
  })
}
