import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { loadConfig } from '../config.ts'
import { thisProcess } from '../job-runner/process.ts'
import { commitOnce } from './commit-once.ts'
import { openStore } from './open-store.ts'

// a process that crash tests end in the middle of a commit: says which thread does its file work, waits for a line, commits
const threads = (): string[] => readdirSync('/proc/self/task')

const main = async (): Promise<void> => {
  const others = new Set(threads())
  await stat('/')
  // asked once in a process's life
  await thisProcess()
  process.stdout.write(`${JSON.stringify({ fileThread: threads().filter((t) => !others.has(t)) })}\n`)
  await once(process.stdin, 'data')
  const held = await commitOnce(openStore(loadConfig()), process.argv[2] ?? '')
  process.stdout.write(`${JSON.stringify({ held: held.attempt })}\n`)
}

main()
  .catch((e: unknown) => {
    process.stderr.write(String(e))
    process.exitCode = 1
  })
  .finally(() => process.stdin.destroy())
