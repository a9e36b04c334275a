import type { CptRunSpec, Decision } from '@cpt/contracts/cpt-run'
import { CorpusSpec } from '@cpt/contracts/cpt-run'
import { merge } from './patch.ts'

type Corpus = CptRunSpec['corpus']
type Fields = Record<string, unknown>

/** By stage: the settings of the corpus that its request holds, as a part of the corpus. What else a request holds comes from the run. */
const settingsIn: Record<string, (request: Fields) => Fields> = {
  'ingest': ({ maxQuarantineRatio, shardDocs, shardBytes }) => ({ maxQuarantineRatio, shardDocs, shardBytes }),
  'filter': ({ rules }) => ({ filter: rules }),
  'dedup-signatures': ({ ngram, numPermutations }) => ({ dedup: { ngram, numPermutations } }),
  'dedup': ({ ngram, numPermutations, jaccard }) => ({ dedup: { ngram, numPermutations, jaccard } }),
  'decontaminate': ({ ngram, ignoreGramsOver, maxHitRatio }) => ({ decontaminate: { ngram, ignoreGramsOver, maxHitRatio } }),
  'find-personal-data': ({ kinds, find }) => ({ personalData: { kinds, find } }),
  'score-quality': ({ kinds, minScore }) => ({ quality: { kinds, minScore } }),
  'label-topics/quality': ({ docsPerLanguage, maxDocChars, maxTokens, model }) => ({ quality: { label: { docsPerLanguage, maxDocChars, maxTokens, model } } }),
  'label-topics': ({ docsPerLanguage, maxDocChars, maxTokens, model }) => ({ topics: { label: { docsPerLanguage, maxDocChars, maxTokens, model } } }),
  'classify-topics': ({ kinds, minProbability, fallback }) => ({ topics: { kinds, minProbability, fallback } }),
  'hold-out': ({ targetSeNats, pairedSdNats, maxShare, minDocs, maxDocChars }) => ({ holdOut: { targetSeNats, pairedSdNats, maxShare, minDocs, maxDocChars } }),
  'score-ppl': ({ windowTokens, maxTokensPerDoc, minTokens, maxNonFiniteRatio }) => ({ scoring: { windowTokens, maxTokensPerDoc, minTokens, maxNonFiniteRatio } }),
}

/**
 * The corpus as its stages were carried out: what a person patched when one of them failed is part of it. Whoever takes the
 * corpus by its name then asks for the same stages, and is not stopped by what was decided already.
 */
export const effectiveCorpus = (corpus: Corpus, decisions: readonly Decision[]): Corpus => {
  const patches = decisions.flatMap(({ stage, patch }) => {
    const { request } = (patch ?? {}) as { request?: Fields }
    return request === undefined ? [] : [withoutGaps(settingsIn[stage]?.(request) ?? {})]
  })
  return patches.length === 0 ? corpus : CorpusSpec.parse(patches.reduce(merge, corpus))
}

/** Fields of a patch that says nothing of them must not overwrite what holds. */
const withoutGaps = (fields: Fields): Fields => JSON.parse(JSON.stringify(fields)) as Fields
