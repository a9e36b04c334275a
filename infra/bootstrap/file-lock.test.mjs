import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { tryLock } from './file-lock.mjs'
import { identify } from './process-identity.mjs'

let folder
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'cpt-lock-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))
const path = () => join(folder, 'lock')

test('a lock is taken once, names its holder, and is free again after its release', () => {
  const first = tryLock(path())
  expect(tryLock(path()).holder).toEqual(identify())
  first.release()
  expect(readdirSync(folder)).toEqual([])
  expect(tryLock(path()).release).toBeDefined()
})

test('the lock of a process that was killed is taken over, also when its number lives again', async () => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'])
  await once(child, 'spawn')
  const holder = identify(child.pid)
  writeFileSync(path(), JSON.stringify(holder))
  expect(tryLock(path()).holder).toEqual(holder)
  child.kill('SIGKILL')
  await once(child, 'exit')
  const taken = tryLock(path())
  expect(taken.release).toBeDefined()
  taken.release()
  writeFileSync(path(), JSON.stringify({ pid: process.pid, start: 'another time' }))
  expect(tryLock(path()).release).toBeDefined()
})
