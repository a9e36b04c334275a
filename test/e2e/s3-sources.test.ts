import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openBucket } from '@cpt/activities/artifact-store/bucket'
import { IngestResult } from '@cpt/contracts/ingest'
import { startS3, type S3Server } from '../../infra/s3/start.mjs'
import { failureOf, stageIs, startRun, type RunHandle } from '../harness/runs.ts'
import { briefRun, makeSmallCorpus } from '../harness/small-run.ts'
import { commitsOf, nothingLeft } from '../harness/store.ts'
import { startSystem, type System } from '../harness/system.ts'

let small: Awaited<ReturnType<typeof makeSmallCorpus>>
let s3: S3Server
let system: System
beforeAll(async () => {
  small = await makeSmallCorpus()
  s3 = await startS3()
  system = await startSystem({ roots: { small: small.dir, lake: `s3://${s3.bucket}/lake` }, settings: () => s3.env })
})
afterAll(async () => {
  await system.stop()
  await s3.stop()
  await small.remove()
})

const put = async (key: string, body: Uint8Array): Promise<void> => {
  const { client, at } = openBucket(system.config.buckets['lake']!)
  const { sdk, s3: sending } = await client()
  await sending.send(new sdk.PutObjectCommand({ ...at(key), Body: body }))
}
const { corpus: shared, ...rest } = briefRun()
const inLake = { ...shared, sources: [{ name: 'web', path: 'lake:web/' }, { name: 'notes', path: 'lake:notes/', format: 'text' as const, language: 'en', kind: 'book' as const }, ...(shared?.sources ?? []).slice(2)] }
const ended = async (run: RunHandle): Promise<void> => {
  await run.cancel()
  await run.result().catch(() => undefined)
}
const ingested = async (): Promise<IngestResult[]> => (await commitsOf(system.storeDir)).flatMap((r) => (r.stage === 'ingest' && 'units' in (r.result as object) ? [IngestResult.parse(r.result)] : []))
type IngestResult = ReturnType<(typeof IngestResult)['parse']>

test('sources in a bucket are read as files on a disk are; one that changed is a new input, and only it is read again', async () => {
  for (const name of ['zh.jsonl', 'en.jsonl']) await put(`web/${name}`, await readFile(join(small.dir, name)))
  await put('notes/one.txt', Buffer.from('The lighthouse keeper wrote down the weather every evening before supper, because ships depended on it.'))
  await put('notes/more/two.txt', Buffer.from('Fishermen from neighbouring villages came to compare his notes with their own memories of the winter storms.'))
  const first = await startRun(system, 'lake', { ...rest, corpus: inLake })
  await stageIs(first, 'ingest', 'done')
  await ended(first)
  expect((await ingested())[0]?.counts.bySource).toMatchObject({ notes: 2 })

  const onDisk = await startRun(system, 'disk', { ...rest, corpus: { ...inLake, sources: [{ name: 'web', path: 'small:zh.jsonl' }, ...inLake.sources.slice(1)] } })
  await stageIs(onDisk, 'ingest', 'done')
  await ended(onDisk)
  const units = async (): Promise<number> => (await commitsOf(system.storeDir)).filter((r) => r.stage === 'ingest' && !('units' in (r.result as object))).length
  const before = await units()
  await put('web/zh.jsonl', Buffer.concat([await readFile(join(small.dir, 'zh.jsonl')), Buffer.from('{"id": "new", "text": "后来才写的一篇，提交语料时还没有它。", "lang": "zh", "kind": "web"}\n')]))
  const changed = await startRun(system, 'changed', { ...rest, corpus: inLake })
  await stageIs(changed, 'ingest', 'done')
  await ended(changed)
  expect(await units()).toBe(before + 1)
  await nothingLeft(system.storeDir)
})

test('an object that is not there is refused by its path, as is a model in a bucket', async () => {
  const sources = [...(shared?.sources ?? []), { name: 'none', path: 'lake:none.jsonl' }]
  expect(await failureOf(await startRun(system, 'none', { ...rest, base: { model: 'lake:model/' }, corpus: { ...shared, sources } }))).toMatchObject({ type: 'InvalidInput', problems: expect.arrayContaining([
    expect.objectContaining({ path: `corpus.sources.${sources.length - 1}.path`, got: expect.stringContaining(`looked at s3://${s3.bucket}/lake/none.jsonl`) as unknown }),
    expect.objectContaining({ path: 'base.model' }),
  ]) as unknown })
})
