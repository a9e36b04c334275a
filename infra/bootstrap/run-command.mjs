import { spawn } from 'node:child_process'
import { setPriority } from 'node:os'
import { createInterface } from 'node:readline'
import { childEnvironment, home } from './home.mjs'
import { SetupError, say } from './progress.mjs'

const running = new Set()

// a step's child leads its own process group, so that stopping it also stops what it started
const stop = (signal) => {
  for (const child of running) {
    try {
      process.kill(-child.pid, 'SIGTERM')
    } catch {
      // it has just ended
    }
  }
  process.exit(signal === 'SIGINT' ? 130 : 143)
}
const signals = ['SIGINT', 'SIGTERM']
const watch = (child) => {
  if (running.size === 0) for (const signal of signals) process.on(signal, stop)
  running.add(child)
}
const unwatch = (child) => {
  if (running.delete(child) && running.size === 0) for (const signal of signals) process.off(signal, stop)
}

/**
 * Runs a program to its end; its lines go to our stderr, indented. Returns {code, tail}, the tail being its last lines.
 * `quiet` keeps lines back, `onLine` sees each, `env` is added to the environment, `niceness` lowers its priority.
 */
export const runCommand = (program, args, { cwd = home, env = {}, quiet = false, onLine, indent = '  ', niceness } = {}) =>
  new Promise((resolve) => {
    const child = spawn(program, args, { cwd, env: { ...childEnvironment(), ...env }, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    if (child.pid !== undefined) {
      watch(child)
      if (niceness !== undefined) setPriority(child.pid, niceness)
    }
    const tail = []
    for (const stream of [child.stdout, child.stderr])
      createInterface({ input: stream }).on('line', (line) => {
        tail.push(line)
        if (tail.length > 40) tail.shift()
        onLine?.(line)
        if (!quiet) say(`${indent}${line}`)
      })
    child.on('error', (error) => resolve({ code: 127, tail: [error.message] }))
    child.on('close', (code, signal) => {
      unwatch(child)
      resolve({ code: code ?? (signal === null ? 1 : 128), tail })
    })
  })

/** Like runCommand, but a failure ends the set-up with what to do. */
export const mustRun = async (program, args, { fix, ...options }) => {
  const { code, tail } = await runCommand(program, args, options)
  if (code === 0) return tail
  const said = options.quiet ? `\n${tail.slice(-15).join('\n')}` : ''
  throw new SetupError(`${program} ${args.join(' ')} ended with exit code ${code}${said}`, fix)
}

/** The output of a short question to a program, or null when it cannot be asked. */
export const ask = async (program, args) => {
  const lines = []
  const { code } = await runCommand(program, args, { quiet: true, onLine: (line) => lines.push(line) })
  return code === 0 ? lines.join('\n') : null
}
