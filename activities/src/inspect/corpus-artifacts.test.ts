import type { ArtifactRef, CommitRecord } from '@cpt/contracts/artifact'
import { expect, test } from 'vitest'
import { sha256 } from '../identity.ts'
import { corpusArtifacts } from './corpus-artifacts.ts'

const ref = (of: string, name: string): ArtifactRef => ({ uri: `store:${sha256(of)}/${name}.json`, sha256: sha256(`${of}/${name}`), bytes: 10 })
const counts = { docs: 1, kept: 1, byReason: {}, byLanguage: {} }
let clock = 0
const record = (of: string, stage: string, request: object, result: object, parents: string[] = []): CommitRecord => {
  clock += 1
  return { format: 'cpt-commit/1', fingerprint: sha256(of), stage, version: 1, request, files: [], result, parents: parents.map((p) => sha256(p)), attempt: '', wallSeconds: 1, committedAt: new Date(clock * 1000).toISOString() }
}
const corpus = ref('ingest', 'corpus')
const ingested = record('ingest', 'ingest', {}, { corpus, quarantine: ref('ingest', 'quarantine') })
const filtered = (of: string) => record(of, 'filter', { corpus }, { verdicts: ref(of, 'verdicts'), counts }, ['ingest'])
const deduplicated = record('dedup', 'dedup', { corpus }, { verdicts: ref('dedup', 'verdicts'), counts: { ...counts, clusters: 0 } }, ['ingest', 'filter'])
const tokenized = record('tokenize', 'tokenize', { corpus, drops: [ref('filter', 'verdicts'), ref('dedup', 'verdicts')] }, { tokens: ref('tokenize', 'tokens'), index: ref('tokenize', 'index'), counts: { docs: 1, tokens: 1, bytes: 1, byLanguage: {} } }, ['ingest', 'filter', 'dedup'])
const planned = record('plan', 'sample-mixture', { pools: [] }, { plan: ref('plan', 'plan'), numTokens: 1, numPieces: 1, numDocs: 1, maxOffShareTokens: 0, strata: [] }, ['tokenize'])

const storeOf = (...records: CommitRecord[]) => {
  const known = new Map(records.map((r) => [r.fingerprint, r]))
  return { record: (fingerprint: string) => Promise.resolve(known.get(fingerprint) ?? null) }
}

test('all that was made of a corpus is found from the last of its commits', async () => {
  const found = await corpusArtifacts(storeOf(ingested, filtered('filter'), deduplicated, tokenized, planned), [planned.fingerprint])
  expect(found).toEqual({
    pools: [{
      corpus, quarantine: ref('ingest', 'quarantine'), topics: null, quality: null, index: ref('tokenize', 'index'), scores: null,
      steps: [{ stage: 'filter', verdicts: ref('filter', 'verdicts') }, { stage: 'dedup', verdicts: ref('dedup', 'verdicts') }],
    }],
    plans: [ref('plan', 'plan')],
    validation: [],
  })
})

test('of two verdicts of a stage the ones that counted are those tokenize was given', async () => {
  const [first, later] = [filtered('filter'), filtered('filter again')]
  const before = await corpusArtifacts(storeOf(ingested, first, later), [ingested, first, later].map((r) => r.fingerprint))
  expect(before.pools[0]?.steps).toEqual([{ stage: 'filter', verdicts: ref('filter again', 'verdicts') }])
  const after = await corpusArtifacts(storeOf(ingested, first, later, deduplicated, tokenized), [later, tokenized].map((r) => r.fingerprint))
  expect(after.pools[0]?.steps.map((s) => s.verdicts.sha256)).toEqual([ref('filter', 'verdicts').sha256, ref('dedup', 'verdicts').sha256])
})

test('imported tokens are a pool of their own, with the index they came with and the scores of it', async () => {
  const pool = ref('import', 'corpus')
  const index = ref('import', 'index')
  const imported = record('import', 'import-tokens', {}, { corpus: pool, tokens: ref('import', 'tokens'), index, counts: {} })
  const scored = record('scores', 'score-ppl', { index }, { scores: ref('scores', 'scores'), counts: { docs: 1, scored: 1, scoredTokens: 1, sumNllNats: 1, pplHistogram: {} } }, ['import'])
  const { pools } = await corpusArtifacts(storeOf(ingested, imported, scored), [ingested.fingerprint, scored.fingerprint])
  expect(pools.map((p) => [p.corpus, p.index, p.scores])).toEqual([[corpus, null, null], [pool, index, ref('scores', 'scores')]])
})

test('the corpus is the first pool, also where synthetic documents were made before it', async () => {
  const made = { ...record('synthesis', 'synthesize-qa', {}, { corpus: ref('synthesis', 'corpus') }), committedAt: new Date(0).toISOString() }
  const { pools } = await corpusArtifacts(storeOf(made, ingested), [made.fingerprint, ingested.fingerprint])
  expect(pools.map((p) => p.corpus)).toEqual([corpus, ref('synthesis', 'corpus')])
})

test('commits of single shards, which a history may name too, are passed over', async () => {
  const shard = record('shard', 'ingest', {}, { outputs: { corpus: [] }, counts: {} })
  const judged = record('judged shard', 'filter', { corpus }, { outputs: { verdicts: [] }, counts: {} })
  const { pools } = await corpusArtifacts(storeOf(ingested, filtered('filter'), shard, judged), [ingested.fingerprint, sha256('filter'), shard.fingerprint, judged.fingerprint])
  expect(pools.map((p) => [p.corpus, p.steps.length])).toEqual([[corpus, 1]])
})

test('a run whose ingest has not ended has none', async () => {
  expect(await corpusArtifacts(storeOf(), [sha256('running')])).toEqual({ pools: [], plans: [], validation: [] })
})
