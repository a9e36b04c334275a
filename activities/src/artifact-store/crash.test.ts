import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, relative } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { commitOnce, disturbed } from './commit-once.ts'
import { buildCrashMe, startCrashMe } from './crashing-process.ts'
import { localDiskStore } from './local-disk.ts'
import { traceThread, type SystemCall } from './strace.ts'

let folder: string
let program: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cpt-crash-'))
  program = join(folder, 'crash-me.cjs')
  await buildCrashMe(program, { withS3: false })
}, 60_000)
afterAll(() => rm(folder, { recursive: true }))

/** Commits in a process of its own, followed by strace with `args`. */
const commitUnder = async (root: string, args: string[]) => {
  const child = await startCrashMe(program, 'first', { CPT_STORE: root })
  const strace = await traceThread(child.fileThread, `${root}.trace`, args)
  child.go()
  const end = await child.ended
  return { ...end, pid: child.pid, calls: await strace.done }
}

/** All there is to crash at: every system call of the thread that does the file work, but for its knocks at the event loop. */
const pointsIn = (calls: SystemCall[]): SystemCall[] => calls.filter((c) => !c.line.includes('eventfd'))

test('a commit that is killed at any of its system calls is there whole or not at all, and the next attempt holds or reads it', { timeout: 300_000 }, async () => {
  const undisturbed = await commitUnder(join(folder, 'undisturbed'), [])
  expect(undisturbed).toMatchObject({ signal: null, held: 'first' })
  const points = pointsIn(undisturbed.calls)
  // what a commit is made of: two files, each written, synced, linked and its draft removed, and their folders synced
  for (const [name, least] of [['mkdir', 2], ['write', 2], ['fsync', 4], ['link', 2], ['unlink', 2]] as const) expect(points.filter((c) => c.name === name).length, name).toBeGreaterThanOrEqual(least)

  const seen = { whole: 0, none: 0 }
  const left = [...points.entries()]
  const crashAtAll = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) seen[await crashAt(join(folder, String(next[0])), next[1])] += 1
  }
  await Promise.all([crashAtAll(), crashAtAll(), crashAtAll()])
  expect(seen.whole).toBeGreaterThan(0)
  expect(seen.none).toBeGreaterThan(seen.whole)
})

const crashAt = async (root: string, { name, nth, line }: SystemCall): Promise<'whole' | 'none'> => {
  const at = `killed at ${line}`
  const { signal, held, pid } = await commitUnder(root, ['-e', `inject=${name}:signal=SIGKILL:when=${nth}`])
  expect({ signal, held }, at).toEqual({ signal: 'SIGKILL', held: null })

  const store = localDiskStore({ store: root })
  const found = await store.record(disturbed.fingerprint)
  if (found !== null) expect(await store.read({ uri: `store:${disturbed.fingerprint}/out/corpus.json`, sha256: found.files[0]!.sha256, bytes: found.files[0]!.bytes }), at).toEqual(disturbed.content)
  const data = await store.get(disturbed.dataKey('first'))
  if (data !== null) expect(data, at).toEqual(disturbed.content)
  // what else is left is provably the dead process's own
  const files = (await readdir(root, { recursive: true, withFileTypes: true }).catch(() => [])).filter((e) => e.isFile())
  const others = files.map((e) => relative(root, join(e.parentPath, e.name))).filter((key) => key !== disturbed.recordKey && key !== disturbed.dataKey('first'))
  expect(others.filter((key) => !basename(key).startsWith(`.tmp-${pid}-`)), at).toEqual([])

  const next = await commitOnce(store, 'second')
  expect(next.attempt, at).toBe(found === null ? 'second' : 'first')
  expect(await store.record(disturbed.fingerprint), at).toEqual(next)
  return found === null ? 'none' : 'whole'
}

test.each([
  ['a file system without hard links', 'link:error=EPERM', 'makes no hard links'],
  ['a disk without space', 'openat:error=ENOSPC:when=1', 'ENOSPC'],
  ['a disk that fails while it syncs', 'fsync:error=EIO:when=1', 'EIO'],
])('%s is named, nothing is committed and no draft is left', async (_, inject, message) => {
  const root = join(folder, inject.replace(/\W/g, '-'))
  const { held, said } = await commitUnder(root, ['-e', `inject=${inject}`])
  expect(held).toBeNull()
  expect(said).toContain(message)
  expect((await readdir(root, { recursive: true, withFileTypes: true })).filter((e) => e.isFile())).toEqual([])
})
