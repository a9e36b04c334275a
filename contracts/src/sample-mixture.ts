import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { Stratum } from './hold-out.ts'
import { stage } from './stage.ts'
import { Count, Language, Ratio, Seed, Tokens } from './units.ts'

/** A corpus as the planner sees it; scores order it (perplexity curriculum), topics give web pages their stratum. */
export const Pool = z.strictObject({
  corpus: ArtifactRef,
  tokens: ArtifactRef,
  index: ArtifactRef,
  topics: ArtifactRef.nullable(),
  scores: ArtifactRef.nullable(),
})

/**
 * Draws one round's immutable token plan. In perplexity order a round that covers tokens [from, to) of the stage's
 * `total` draws from the quantile band [from/total, to/total) of every stratum and orders by perplexity; a short band
 * borrows by the exhaustion policy, on record. Pieces are interleaved so that no stratum is more than 2·sequenceTokens
 * off its share at any point. The plan holds `tokenBudget` + 1 tokens: sequence i reads [i·S, (i+1)·S + 1).
 */
export const SampleMixtureRequest = z.strictObject({
  pools: z.array(Pool).min(1),
  tokenizer: ArtifactRef,
  strata: z.array(Stratum.extend({ ratio: Ratio })).min(1),
  tokenBudget: Tokens.min(1),
  sequenceTokens: z.int().min(8),
  order: z.enum(['perplexity', 'random']),
  curriculumLanguages: z.array(Language).nullable().default(null),
  band: z.strictObject({ fromTokens: Tokens, toTokens: Tokens, totalTokens: Tokens.min(1) }),
  previous: ArtifactRef.nullable(),
  exhaustion: z.enum(['repeat', 'fail']).default('repeat'),
  maxEpochs: z.int().min(1).max(100).default(8),
  bos: z.boolean().default(false),
  eos: z.boolean().default(true),
  seed: Seed.default(42),
})
export const PlannedStratum = Stratum.extend({ ratio: Ratio, tokens: Tokens, docs: Count, availableTokens: Tokens, borrowedTokens: Tokens, repeatedTokens: Tokens, meanNll: z.number().nullable() })
export const SampleMixtureResult = z.object({ plan: ArtifactRef, numTokens: Tokens, numPieces: Count, numDocs: Count, maxOffShareTokens: z.number(), strata: z.array(PlannedStratum) })
export const sampleMixture = stage({ name: 'sample-mixture', version: 1, shape: { kind: 'whole' }, request: SampleMixtureRequest, result: SampleMixtureResult })
