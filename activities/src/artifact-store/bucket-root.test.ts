import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startS3, type S3Server } from '../../../infra/s3/start.mjs'
import { loadConfig } from '../config.ts'
import { sha256 } from '../identity.ts'
import { UnknownPath } from '../stage-failure.ts'
import { bucketRoot } from './bucket-root.ts'
import { openStore } from './open-store.ts'
import { openBucket } from './bucket.ts'

let s3: S3Server
let state: string
let environment: Record<string, string>
beforeAll(async () => {
  s3 = await startS3()
  state = await mkdtemp(join(tmpdir(), 'cpt-lake-'))
  environment = { ...s3.env, CPT_STATE: state, CPT_ROOTS: JSON.stringify({ lake: `s3://${s3.bucket}/lake/` }) }
}, 120_000)
afterAll(async () => {
  await s3.stop()
  await rm(state, { recursive: true, force: true })
})

const place = (over: Record<string, string> = {}) => loadConfig({ ...environment, ...over }).buckets['lake']!
const put = async (key: string, text: string): Promise<void> => {
  const { client, at } = openBucket(place())
  const { sdk, s3: sending } = await client()
  await sending.send(new sdk.PutObjectCommand({ ...at(key), Body: text }))
}
const store = (over: Record<string, string> = {}) => openStore(loadConfig({ ...environment, ...over }))

test('an object is a reference by its digest, which is not taken again until the object changes', async () => {
  await put('a.jsonl', 'first')
  expect(await store().refTo('lake:a.jsonl')).toEqual({ uri: 'lake:a.jsonl', sha256: sha256('first'), bytes: 5 })
  const [noted] = await store().list('digests/')
  // what is remembered holds without another look at the bytes
  await store().remove(noted ?? '')
  await store().putIfAbsent(noted ?? '', Buffer.from(JSON.stringify({ sha256: sha256('told') })))
  expect((await store().refTo('lake:a.jsonl')).sha256).toBe(sha256('told'))
  await put('a.jsonl', 'other')
  expect((await store().refTo('lake:a.jsonl')).sha256).toBe(sha256('other'))
  expect(await store().list('digests/')).toHaveLength(2)
})

test('a prefix is a folder: its files are listed, and together they are one reference as on a disk', async () => {
  for (const [key, text] of [['web/a.jsonl', 'A'], ['web/more/b.jsonl', 'BB'], ['webs/c.jsonl', 'C']] as const) await put(key, text)
  expect(await store().filesUnder('lake:web')).toEqual([{ name: 'a.jsonl', isFile: true }, { name: 'more/b.jsonl', isFile: true }])
  expect(await store().filesUnder('lake:web/a.jsonl')).toBeNull()
  const ref = await store().refTo('lake:web')
  expect(ref).toEqual({ uri: 'lake:web/', sha256: sha256(JSON.stringify([['a.jsonl', sha256('A')], ['more/b.jsonl', sha256('BB')]])), bytes: 3 })
})

test('what is not there, leaves the root or may not be read is told with its place', async () => {
  const refused = async (uri: string, over: Record<string, string> = {}): Promise<string> => {
    const failure: unknown = await store(over).refTo(uri).catch((e: unknown) => e)
    expect(failure).toBeInstanceOf(UnknownPath)
    return (failure as UnknownPath).message
  }
  expect(await refused('lake:none.jsonl')).toContain(`lake:none.jsonl: no such object or prefix (looked at s3://${s3.bucket}/lake/none.jsonl)`)
  expect(await refused('lake:web/../../x')).toContain('leaves its root')
  expect(await refused('lake:a.jsonl', { AWS_SECRET_ACCESS_KEY: 'wrong' })).toMatch(/lake:a\.jsonl: looking at a\.jsonl in s3:\/\/cpt\/lake was refused: .*403/)
  expect(await refused('lake:a.jsonl', { CPT_ROOTS: '{"lake": "s3://no-such-bucket/x"}' })).toContain('lake:a.jsonl')
  await expect(store().localPath({ uri: 'lake:a.jsonl' })).rejects.toThrow(/root lake is a bucket .*only sources of a corpus/)
})

test('doctor’s look at a bucket says what is wrong with it', async () => {
  expect(await bucketRoot(place(), store()).probe()).toBeNull()
  expect(await bucketRoot(place({ AWS_SECRET_ACCESS_KEY: 'wrong' }), store()).probe()).toMatch(/refused: SignatureDoesNotMatch .*AWS_SECRET_ACCESS_KEY/)
  expect(await bucketRoot(place({ CPT_ROOTS: '{"lake": "s3://no-such-bucket/x"}' }), store()).probe()).toMatch(/NoSuchBucket .*CPT_ROOTS/)
})
