import { spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

/** The system folders hold the daemons and are not on everyone's PATH. */
export const systemPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

const living = new Set()
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL')
})

/**
 * A daemon in the foreground, which a test may end, hold and start again: {name, pid, start, kill, pause, resume, log}.
 * `ready` is polled after each start; a daemon that ends before it is an error with its last words.
 */
export const daemon = ({ name, program, args, env, logFile, ready }) => {
  let child = null
  const isRunning = () => child !== null && child.exitCode === null && child.signalCode === null
  const log = () => readFileSync(logFile, 'utf8').split('\n').slice(-15).join('\n')
  const end = async (signal) => {
    if (!isRunning()) return
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signal)
    // a stopped process takes TERM only when it goes on
    if (signal !== 'SIGKILL') child.kill('SIGCONT')
    await gone
  }
  return {
    name,
    get pid() {
      return isRunning() ? child.pid : null
    },
    log,
    async start() {
      if (isRunning()) return
      const out = openSync(logFile, 'a')
      child = spawn(program, args, { env, stdio: ['ignore', out, out], detached: true })
      closeSync(out)
      const mine = child
      living.add(mine)
      mine.once('exit', () => living.delete(mine))
      const failed = new Promise((_, reject) => mine.once('error', (e) => reject(new Error(`${name}: ${e.message}`))))
      failed.catch(() => undefined)
      const deadline = performance.now() + 60_000
      await Promise.race([
        failed,
        (async () => {
          while (!(await ready())) {
            if (!isRunning()) throw new Error(`${name} ended at its start; its last words:\n${log()}`)
            if (performance.now() > deadline) throw new Error(`${name} is not ready after 60 s; its last words:\n${log()}`)
            await delay(50)
          }
        })(),
      ])
    },
    kill: (signal = 'SIGKILL') => end(signal),
    pause: () => child?.kill('SIGSTOP'),
    resume: () => child?.kill('SIGCONT'),
  }
}
