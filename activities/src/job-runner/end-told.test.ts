import { link, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { endTold } from './end-told.ts'

let dir: string
let leave: AbortController
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cpt-end-'))
  leave = new AbortController()
})
afterEach(async () => {
  leave.abort()
  await rm(dir, { recursive: true })
})

test('the end of a job is told when its record is linked into place, and nothing else is', async () => {
  const told = endTold(dir, leave.signal)
  let said = false
  void told.then(() => { said = true })
  await writeFile(join(dir, 'beat.json'), '{}')
  await writeFile(join(dir, '.end.json.draft'), '{}')
  // events of one folder come in their order: this one was told, so those before were
  const marker = new Promise<void>((resolve) => void endTold(dir, leave.signal).then(resolve))
  expect(said).toBe(false)
  await link(join(dir, '.end.json.draft'), join(dir, 'end.json'))
  await Promise.all([told, marker])
  expect(said).toBe(true)
})

test('a folder that cannot be watched tells nothing and fails nobody', async () => {
  const told = endTold(join(dir, 'nowhere'), leave.signal)
  await expect(Promise.race([told.then(() => 'told'), Promise.resolve('nothing')])).resolves.toBe('nothing')
})
