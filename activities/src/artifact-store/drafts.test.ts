import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { draftName, draftsIn, sweepDrafts } from './drafts.ts'

let folder: string
beforeEach(async () => void (folder = await mkdtemp(join(tmpdir(), 'cpt-drafts-'))))
afterEach(() => rm(folder, { recursive: true }))
const put = async (name: string): Promise<string> => {
  await mkdir(draftsIn(folder), { recursive: true })
  await writeFile(join(draftsIn(folder), name), '')
  return name
}

test('what a dead process of this machine left is removed; drafts of living processes and of other machines stay', async () => {
  const mine = await put(await draftName())
  const [, pid, ticks, boot, host, unique] = /^\.tmp-(\d+)-(\d+)-(.+)-([^-]+)-(.{36})$/.exec(mine) ?? []
  const writtenBy = (over: { pid?: number | undefined; ticks?: string; boot?: string; host?: string }) => put(`.tmp-${over.pid ?? pid}-${over.ticks ?? ticks}-${over.boot ?? boot}-${over.host ?? host}-${unique}`)
  const child = spawn(process.execPath, ['-e', ''])
  await once(child, 'exit')
  const elsewhere = await writtenBy({ pid: child.pid, host: 'elsewhere' })
  await writtenBy({ pid: child.pid })
  // the number of a process is given out again, and again after each boot
  await writtenBy({ ticks: '1' })
  await writtenBy({ boot: '00000000-0000-0000-0000-000000000000' })
  const record = await put('record.json')

  expect(await sweepDrafts(folder)).toBe(3)
  expect((await readdir(draftsIn(folder))).sort()).toEqual([elsewhere, mine, record].sort())
})

test('where nothing was ever written nothing is swept', async () => {
  expect(await sweepDrafts(folder)).toBe(0)
})
