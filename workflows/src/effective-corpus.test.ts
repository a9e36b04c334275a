import { CorpusSpec, type CptRunSpec, type Decision } from '@cpt/contracts/cpt-run'
import { expect, test } from 'vitest'
import { effectiveCorpus } from './effective-corpus.ts'

const corpus = CorpusSpec.parse({
  sources: [{ name: 'zh', path: 'samples:corpus/zh.jsonl.zst' }], maxQuarantineRatio: 0.01, filter: {}, dedup: {}, decontaminate: {},
  topics: { kinds: ['web'], minProbability: 0.3, taxonomies: { zh: 'syne-zh/1' } }, holdOut: { minDocs: 3, maxDocChars: 2000 }, scoring: { windowTokens: 256, maxTokensPerDoc: 256, minTokens: 20 },
})
const retried = (stage: string, request?: Record<string, unknown>): Decision => ({ stage, park: 1, action: 'retry', patch: request === undefined ? { placement: { threads: 1 } } : { request }, reason: '', by: 'ann', atMs: 0 })

test('without a decision on its stages a corpus is what it was given as', () => {
  expect(effectiveCorpus(corpus, [])).toBe(corpus)
  expect(effectiveCorpus(corpus, [retried('ingest'), { ...retried('ingest'), patch: null }, retried('stage-1/round-1/train', { schedule: { peakLr: 1 } })])).toEqual(corpus)
})

test('what was patched in a stage is the corpus from then on, each patch over the one before', () => {
  const after = effectiveCorpus(corpus, [
    retried('ingest', { maxQuarantineRatio: 0.2 }), retried('filter', { rules: { minWords: 3 } }), retried('ingest', { maxQuarantineRatio: 0.3 }),
    retried('dedup-signatures', { ngram: 4 }), retried('dedup', { jaccard: 0.5 }), retried('decontaminate', { ngram: 9 }), retried('classify-topics', { minProbability: 0.1 }), retried('hold-out', { minDocs: 1 }), retried('score-ppl', { minTokens: 5 }),
  ])
  expect(after).toEqual({
    ...corpus, maxQuarantineRatio: 0.3, filter: { ...corpus.filter, minWords: 3 }, dedup: { ngram: 4, jaccard: 0.5 }, decontaminate: { ngram: 9 },
    topics: { ...corpus.topics, minProbability: 0.1 }, holdOut: { ...corpus.holdOut, minDocs: 1 }, scoring: { ...corpus.scoring, minTokens: 5 },
  })
})

test('what a sample to be labelled may cost is a setting of the corpus', () => {
  const labelled = CorpusSpec.parse({ ...corpus, topics: { ...corpus.topics, label: { languages: ['zh'], model: 'm' } } })
  expect(effectiveCorpus(labelled, [retried('label-topics', { maxTokens: 5000, model: 'n' })]).topics.label).toEqual({ languages: ['zh'], model: 'n', maxTokens: 5000 })
})

test('stages that are off stay off, whatever was patched in the others', () => {
  const without = { ...corpus, off: ['filter', 'score-ppl'] as CptRunSpec['corpus']['off'] }
  expect(effectiveCorpus(without, [retried('dedup', { jaccard: 0.5 })])).toEqual({ ...without, dedup: { jaccard: 0.5 } })
})

test('a seed or a scorer is the run’s own, and no setting of the corpus', () => {
  expect(effectiveCorpus(corpus, [retried('hold-out', { seed: 7 }), retried('score-ppl', { dtype: 'bfloat16' })])).toEqual(corpus)
})
