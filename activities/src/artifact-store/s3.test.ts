import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startS3, type S3Server } from '../../../infra/s3/start.mjs'
import { loadConfig } from '../config.ts'
import { artifactStoreCases, type StoreBench } from './artifact-store.cases.ts'
import { openStore } from './open-store.ts'
import type { ArtifactStore } from './artifact-store.ts'

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
