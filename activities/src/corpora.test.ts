import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CorpusToCommit } from '@cpt/contracts/committed-corpus'
import { CptRunSpec } from '@cpt/contracts/cpt-run'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { ArtifactStore } from './artifact-store/artifact-store.ts'
import { localDiskStore } from './artifact-store/local-disk.ts'
import { loadConfig } from './config.ts'
import { commitCorpus, corpusNames, newestCorpora, newestCorpus } from './corpora.ts'
import { sha256 } from './identity.ts'
import { overPreset } from './resolve-input.ts'

let root = ''
let store: ArtifactStore
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cpt-corpora-'))
  store = localDiskStore({ store: root })
})
afterEach(() => rm(root, { recursive: true }))

const { corpus: settings } = CptRunSpec.parse(await overPreset(loadConfig({}), {}))
const ref = (what: string) => ({ uri: `store:${sha256(what)}/out.json`, sha256: sha256(`bytes of ${what}`), bytes: 1 })
const made = (what: string) => ({ pool: { corpus: ref(`${what} corpus`), tokens: ref(`${what} tokens`), index: ref('index'), topics: ref('topics'), scores: ref('scores') }, counts: [], validation: ref('validation') })
const corpus = (what: string, by = 'run-1', name = 'web'): CorpusToCommit => ({ name, corpus: { ...settings, name }, sources: [{ name: 'zh', file: ref(what) }], prepared: made(what), committedBy: { workflowId: `corpus/${by}`, firstRunId: by } })
const commit = (what: string, by?: string, name?: string) => commitCorpus({ store })(corpus(what, by, name))

test('a corpus gets the next number of its name, and the newest is what was committed last', async () => {
  expect(await newestCorpus(store, 'web')).toBeNull()
  expect(await commit('monday')).toEqual({ name: 'web', number: 1, unchanged: false })
  expect(await commit('tuesday')).toEqual({ name: 'web', number: 2, unchanged: false })
  expect(await commit('monday')).toEqual({ name: 'web', number: 3, unchanged: false })
  expect(await newestCorpus(store, 'web')).toEqual({ format: 'cpt-corpus/1', number: 3, ...corpus('monday') })
})

test('the content of the newest adds nothing when it is committed again', async () => {
  await commit('monday')
  expect(await commit('monday', 'run-2')).toEqual({ name: 'web', number: 1, unchanged: true })
  expect(await store.list('corpora/')).toEqual(['corpora/web/000001.json'])
})

test('a committer whose answer was lost finds its own corpus, as news', async () => {
  await commit('monday', 'run-1')
  expect(await commit('monday', 'run-1')).toEqual({ name: 'web', number: 1, unchanged: false })
})

test('names do not mix, even where one begins like another', async () => {
  await commit('monday', 'run-1', 'web')
  await commit('tuesday', 'run-1', 'web-2')
  expect(await corpusNames(store)).toEqual(['web', 'web-2'])
  expect((await newestCorpora(store)).map((c) => [c.name, c.number, c.sources[0]?.file.sha256])).toEqual([['web', 1, ref('monday').sha256], ['web-2', 1, ref('tuesday').sha256]])
})

test('of many committers at once each content gets one number, and no number is left out', async () => {
  const all = await Promise.all(Array.from({ length: 12 }, (_, i) => commit(`content ${i % 3}`, `run-${i}`)))
  const kept = await store.list('corpora/web/')
  expect(kept).toEqual(kept.map((_, i) => `corpora/web/${String(i + 1).padStart(6, '0')}.json`))
  // one that was overtaken by other content may have to be put again, so there may be more numbers than contents
  expect(all.filter((c) => !c.unchanged).map((c) => c.number).sort((a, b) => a - b)).toEqual(kept.map((_, i) => i + 1))
  expect(new Set((await Promise.all(kept.map((key) => store.get(key)))).map((b) => (JSON.parse(Buffer.from(b ?? '').toString()) as CorpusToCommit).sources[0]?.file.sha256)).size).toBe(3)
})

test('two with the same content at once commit it once', async () => {
  const both = await Promise.all([commit('monday', 'run-1'), commit('monday', 'run-2')])
  expect(both.map((c) => c.unchanged).sort()).toEqual([false, true])
  expect(await store.list('corpora/web/')).toHaveLength(1)
})

test('a record that cannot be read is named, not passed over', async () => {
  await commit('monday')
  await store.putIfAbsent('corpora/web/000002.json', Buffer.from('{"format": "cpt-corpus/9"}'))
  await expect(newestCorpus(store, 'web')).rejects.toMatchObject({ type: 'StoreCorrupt', nonRetryable: true, message: expect.stringContaining('corpora/web/000002.json is no record of a committed corpus') as unknown })
})
