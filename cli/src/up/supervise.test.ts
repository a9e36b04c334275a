import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { isAlive, type ProcessIdentity } from '../../../infra/bootstrap/process-identity.mjs'
import { backoffMs } from './backoff.ts'
import { supervise, type ServiceEvent, type ServiceSpec } from './supervise.ts'

let folder: string
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'cpt-supervise-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const never = new AbortController().signal
const service = (script: string): ServiceSpec => ({
  name: 'service',
  program: process.execPath,
  args: ['-e', script],
  env: {},
  logFile: join(folder, 'log'),
  ready: (lines) => new Promise((resolve) => lines((line) => line === 'ready' && resolve())),
  readyMs: 10_000,
  graceMs: 2_000,
})
const staying = 'console.log("ready"); setInterval(() => {}, 1000)'

test('a service that dies is started again, and stopped for good by stop()', async () => {
  const born: ProcessIdentity[] = []
  let back: () => void = () => undefined
  const restarted = new Promise<void>((resolve) => (back = resolve))
  const onEvent = (event: ServiceEvent) => {
    if (event.what === 'spawned') born.push(event.identity)
    if (event.what === 'restarted') back()
  }
  const running = await supervise(service(staying), onEvent, never)
  process.kill(born[0]!.pid, 'SIGKILL')
  await restarted
  expect(born).toHaveLength(2)
  expect(isAlive(born[1]!)).toBe(true)
  await running.stop()
  expect(born.some(isAlive)).toBe(false)
  expect(running.restarts()).toBe(1)
})

test('a service that ignores TERM is killed after its grace', async () => {
  const born: ProcessIdentity[] = []
  const spec = { ...service(`process.on("SIGTERM", () => {}); ${staying}`), graceMs: 100 }
  const running = await supervise(spec, (e) => {
    if (e.what === 'spawned') born.push(e.identity)
  }, never)
  await running.stop()
  expect(born.some(isAlive)).toBe(false)
})

test('a service that cannot start is reported with its last words and left stopped', async () => {
  const start = supervise(service('console.error("no such table"); process.exit(3)'), () => undefined, never)
  await expect(start).rejects.toThrow(/exit code 3[\s\S]*no such table/)
  expect(readFileSync(join(folder, 'log'), 'utf8')).toContain('no such table')
})

test('a service whose log cannot be written runs all the same', async () => {
  const running = await supervise({ ...service(`console.log("ready"); ${staying}`), logFile: join(folder, 'none', 'log') }, () => undefined, never)
  expect(running.restarts()).toBe(0)
  await running.stop()
})

test('cancelling while it starts leaves no process', async () => {
  const cancel = new AbortController()
  const born: ProcessIdentity[] = []
  const spec: ServiceSpec = { ...service('setInterval(() => {}, 1000)'), ready: (_lines, signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('cancelled')))) }
  const start = supervise(spec, (e) => {
    if (e.what === 'spawned') born.push(e.identity)
    cancel.abort()
  }, cancel.signal)
  await expect(start).rejects.toThrow()
  expect(born.some(isAlive)).toBe(false)
})

test('restarts come ever more slowly, up to half a minute', () => {
  expect([1, 2, 3, 20].map(backoffMs)).toEqual([250, 500, 1000, 30_000])
})
