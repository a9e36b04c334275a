import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startS3, type S3Server } from '../../../infra/s3/start.mjs'
import { loadConfig } from '../config.ts'
import { artifactStoreCases, type StoreBench } from './artifact-store.cases.ts'
import type { ArtifactStore } from './artifact-store.ts'
import { commitOnce, disturbed } from './commit-once.ts'
import { buildCrashMe, startCrashMe, type CrashingProcess } from './crashing-process.ts'
import { startFaultyProxy, type Fate, type FaultyProxy, type Seen } from './faulty-proxy.ts'
import { openStore } from './open-store.ts'
import { probePutIfAbsent } from './probe.ts'

let server: S3Server
let folder: string
// building the server takes minutes where it was never done
beforeAll(async () => {
  server = await startS3()
  folder = await mkdtemp(join(tmpdir(), 'cpt-s3-cache-'))
}, 900_000)
afterAll(async () => {
  await server.stop()
  await rm(folder, { recursive: true })
})

interface Place extends StoreBench {
  /** Folder of the server in which the store's objects lie. */
  files: string
  cache: string
}

/** A store under a prefix of its own, spoken to through `endpoint`, with what else the environment says. */
const openPlace = (over: Record<string, string> = {}): Place => {
  const name = randomUUID().slice(0, 8)
  const files = join(server.folder, 'team', name)
  const cache = join(folder, name)
  const environment = { ...server.env, CPT_STORE: `s3://${server.bucket}/team/${name}`, CPT_CACHE: cache, ...over }
  return {
    store: openStore(loadConfig(environment)),
    environment, files, cache,
    damage: (path, data) => writeFile(join(files, path), data),
    everything: async () => (await readdir(files, { recursive: true, withFileTypes: true }).catch(() => [])).filter((e) => e.isFile()).map((e) => e.name),
    close: () => rm(files, { recursive: true, force: true }),
  }
}

artifactStoreCases('S3', () => Promise.resolve(openPlace()))

const bytes = (text: string): Uint8Array => Buffer.from(text)
const fingerprint = 'ab'.repeat(32)
const committed = async (store: ArtifactStore, content = 'weights') => {
  const file = await store.write(fingerprint, 'a1', 'model/weights', bytes(content))
  await store.commit({ format: 'cpt-commit/1', fingerprint, stage: 'train', version: 1, request: {}, files: [file], result: {}, parents: [], attempt: 'a1', wallSeconds: 1, committedAt: '2026-01-01T00:00:00Z' })
  return { file, uri: `store:${fingerprint}/model/weights` }
}

describe('a bucket', () => {
  test('is listed beyond the thousand keys of a page, sorted', async () => {
    const { store, files } = openPlace()
    const names = Array.from({ length: 2_345 }, (_, i) => `${i}.json`).sort()
    await mkdir(join(files, 'claims/ab'), { recursive: true })
    for (const name of names) await writeFile(join(files, 'claims/ab', name), '')
    expect(await store.list('claims/')).toEqual(names.map((n) => `claims/ab/${n}`))
    expect(await store.entries('claims/')).toHaveLength(names.length)
  })

  test('is copied to this machine once, and again when the copy is damaged', async () => {
    const { store, cache, environment } = openPlace()
    const { uri } = await committed(store)
    const path = await store.localPath({ uri })
    expect(path.startsWith(cache)).toBe(true)
    await writeFile(path, 'short')
    expect(await readFile(await store.localPath({ uri }), 'utf8')).toBe('weights')
    // the same size, so that only the digest tells: another process looks at it when it meets the file first
    await writeFile(path, 'wEights')
    expect(await readFile(await openStore(loadConfig(environment)).localPath({ uri }), 'utf8')).toBe('weights')
    expect((await readdir(cache, { recursive: true, withFileTypes: true })).filter((e) => e.isFile()).map((e) => e.name)).toEqual(['weights'])
  })

  test('with other bytes than were committed gives no copy', async () => {
    const { store, damage, cache } = openPlace()
    const { uri, file } = await committed(store)
    await damage(file.path, bytes('wEights'))
    await expect(store.localPath({ uri })).rejects.toThrow(`${file.path}, as downloaded, has sha256`)
    expect((await readdir(cache, { recursive: true, withFileTypes: true })).filter((e) => e.isFile())).toEqual([])
  })

  test.each([
    ['there is none', { CPT_STORE: 's3://no-such-bucket/x' }, 'create the bucket, or correct CPT_STORE'],
    ['the key is wrong', { AWS_ACCESS_KEY_ID: 'nobody' }, 'AWS_ACCESS_KEY_ID'],
    ['the secret is wrong', { AWS_SECRET_ACCESS_KEY: 'wrong' }, 'AWS_SECRET_ACCESS_KEY'],
  ])('is named with what to do where %s', async (_, over, message) => {
    const { store } = openPlace(over)
    await expect(store.putIfAbsent('claims/a.json', bytes('x'))).rejects.toThrow(message)
    await expect(store.get('claims/a.json')).rejects.toThrow(message)
    await expect(store.list('claims/')).rejects.toThrow(message)
    await expect(probePutIfAbsent(store)).rejects.toThrow(/writing .*was refused/)
  })

  test('whose server is away is said to be unreachable, and serves again when the server is back', { timeout: 120_000 }, async () => {
    const { store } = openPlace()
    await store.putIfAbsent('claims/a.json', bytes('x'))
    await server.kill()
    const asked = await Promise.allSettled([store.get('claims/a.json'), store.list('claims/'), store.putIfAbsent('claims/b.json', bytes('x'))])
    expect(asked.map((a) => a.status === 'rejected' && (a.reason as Error).name)).toEqual(['StoreUnreachable', 'StoreUnreachable', 'StoreUnreachable'])
    await server.start()
    expect(await store.list('claims/')).toEqual(['claims/a.json'])
    expect(await store.putIfAbsent('claims/b.json', bytes('x'))).toBe(true)
  })
})

/** What must hold at any moment: no record, or the whole of it with its data; then the next attempt holds or reads the first. */
const soundAfter = async (place: Place, first: string, next: string): Promise<'whole' | 'none'> => {
  const { store } = place
  const found = await store.record(disturbed.fingerprint)
  if (found !== null) {
    expect(found.attempt).toBe(first)
    expect(await store.read({ uri: `store:${disturbed.fingerprint}/out/corpus.json`, sha256: found.files[0]!.sha256, bytes: found.files[0]!.bytes })).toEqual(disturbed.content)
  }
  expect((await place.store.list('')).filter((key) => key !== disturbed.recordKey && key !== disturbed.dataKey(first))).toEqual([])
  const held = await commitOnce(store, next)
  expect(held.attempt).toBe(found === null ? next : first)
  expect(await store.record(disturbed.fingerprint)).toEqual(held)
  return found === null ? 'none' : 'whole'
}

describe('through a network that fails', () => {
  let fateOf: (request: Seen) => Fate | Promise<Fate> = () => 'pass'
  let proxy: FaultyProxy
  beforeAll(async () => {
    proxy = await startFaultyProxy(server.endpoint, (request) => fateOf(request))
  })
  afterAll(() => proxy.close())
  beforeEach(() => {
    proxy.reset()
    fateOf = () => 'pass'
  })

  /** The store as one sees it through the proxy, and as it is. */
  const openBoth = () => {
    const straight = openPlace()
    const { CPT_STORE = '', CPT_CACHE = '' } = straight.environment
    const environment = { ...straight.environment, CPT_S3_ENDPOINT: proxy.endpoint }
    return { straight, environment, store: openPlace({ CPT_STORE, CPT_CACHE, CPT_S3_ENDPOINT: proxy.endpoint }).store }
  }

  const fates: [string, Fate][] = [
    ['is lost before it arrives', 'dropped'],
    ['is executed and its answer lost', 'lost'],
    ['is refused by a server in trouble', { status: 503, code: 'SlowDown', executed: false }],
    ['is executed and answered with an error of the server', { status: 500, code: 'InternalError', executed: true }],
    ['meets another conditional put', { status: 409, code: 'ConditionalRequestConflict', executed: false }],
  ]

  test.each(fates)('each request of a commit in turn %s: the commit is won and says so', async (_, fate) => {
    const { store: undisturbed } = openBoth()
    await commitOnce(undisturbed, 'first')
    const requests = proxy.seen.length
    expect(proxy.seen.map((s) => s.method)).toEqual(['PUT', 'PUT'])
    for (let nth = 1; nth <= requests; nth++) {
      const { store, straight } = openBoth()
      proxy.reset()
      fateOf = (request) => (request.nth === nth ? fate : 'pass')
      expect((await commitOnce(store, 'first')).attempt).toBe('first')
      expect(proxy.seen.length).toBeGreaterThan(requests)
      expect(await soundAfter(straight, 'first', 'second')).toBe('whole')
    }
  })

  test('an answer that stays lost, whatever is repeated, is looked up: the put is ours', async () => {
    const { store } = openBoth()
    fateOf = ({ method }) => (method === 'PUT' ? 'lost' : 'pass')
    expect(await store.putIfAbsent('claims/a.json', bytes('mine'))).toBe(true)
    // the library repeats the request by itself, so the server has said 412 to our own object
    expect(proxy.seen.filter((s) => s.method === 'PUT').length).toBeGreaterThan(1)
  })

  test('a put that loses while answers are lost is told so, though the same bytes were put', async () => {
    const { store, straight } = openBoth()
    await straight.store.putIfAbsent('claims/a.json', bytes('the same'))
    fateOf = ({ method }) => (method === 'PUT' ? 'lost' : 'pass')
    expect(await store.putIfAbsent('claims/a.json', bytes('the same'))).toBe(false)
  })

  test('a put that nobody can vouch for is an error, neither won nor lost', { timeout: 60_000 }, async () => {
    const { store, straight } = openBoth()
    fateOf = () => 'lost'
    await expect(store.putIfAbsent('claims/a.json', bytes('mine'))).rejects.toMatchObject({ name: 'StoreUnreachable' })
    expect(Buffer.from((await straight.store.get('claims/a.json')) ?? '').toString()).toBe('mine')
  })

  test('a download whose connection breaks begins anew', async () => {
    const { store } = openBoth()
    const { uri } = await committed(store)
    proxy.reset()
    const dataRead = (s: Seen) => s.method === 'GET' && s.key.includes('/data/')
    fateOf = (request) => (dataRead(request) && proxy.seen.filter(dataRead).length === 1 ? 'lost' : 'pass')
    expect(await readFile(await store.localPath({ uri }), 'utf8')).toBe('weights')
    expect(proxy.seen.filter(dataRead)).toHaveLength(2)
  })

  test('a process that dies at any request of its commit, before or after it is executed, leaves all of it or nothing', { timeout: 180_000 }, async () => {
    const program = join(folder, 'crash-me.cjs')
    await buildCrashMe(program, { withS3: true })
    const seen: Record<string, string> = {}
    for (const nth of [1, 2]) {
      for (const when of ['unheard', 'executed'] as const) {
        const { straight, environment } = openBoth()
        const child: CrashingProcess = await startCrashMe(program, 'first', environment)
        proxy.reset()
        const kill = async () => {
          process.kill(child.pid, 'SIGKILL')
          await child.ended
        }
        fateOf = async (request) => {
          if (request.nth !== nth) return 'pass'
          if (when === 'executed') return { lostAfter: kill }
          await kill()
          return 'dropped'
        }
        child.go()
        expect(await child.ended).toMatchObject({ signal: 'SIGKILL', held: null })
        seen[`${when} ${nth}`] = await soundAfter(straight, 'first', 'second')
      }
    }
    expect(seen).toEqual({ 'unheard 1': 'none', 'executed 1': 'none', 'unheard 2': 'none', 'executed 2': 'whole' })
  })
})

describe('a server that does not know put-if-absent', () => {
  test.each([
    ['ignores the condition', 'writes over a key that exists'],
    ['looks before it writes, and not while it writes', 'simultaneous puts of one key win'],
  ])('and %s is refused by the probe of cpt doctor', async (how, message) => {
    const real = openPlace()
    // what such a server does: the object goes, so that the put succeeds
    const proxy = await startFaultyProxy(server.endpoint, async ({ method, key }): Promise<Fate> => {
      if (method !== 'PUT') return 'pass'
      const name = key.slice(key.indexOf('probes/'))
      if (how === 'ignores the condition' || name.endsWith('-raced')) await real.store.remove(name)
      return 'pass'
    })
    try {
      const { CPT_STORE = '' } = real.environment
      expect(await probePutIfAbsent(openPlace({ CPT_STORE, CPT_S3_ENDPOINT: proxy.endpoint }).store)).toContain(message)
      expect(await real.store.list('')).toEqual([])
    } finally {
      await proxy.close()
    }
  })
})
