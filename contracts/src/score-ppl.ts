import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count, Ratio } from './units.ts'

const Window = z.int().min(8)

/**
 * Perplexity of every document by the model to be trained (arXiv:2407.18743, perplexity curriculum): nll f32 in nats/token, NaN
 * where unscored. `scorer` is a Hugging Face folder, or with `engine: kenlm` an .arpa or binary file over the pieces of `tokenizer`.
 * More than `maxNonFiniteRatio` (by default 0.1 %) of the documents without a finite loss end the stage.
 */
export const ScorePplRequest = z.strictObject({
  tokens: ArtifactRef,
  index: ArtifactRef,
  scorer: ArtifactRef,
  windowTokens: Window.default(2048),
  strideTokens: Window.default(2048),
  maxTokensPerDoc: Window.default(2048),
  dtype: z.enum(['float32', 'bfloat16']).default('float32'),
  minTokens: z.int().min(2).default(20),
  maxNonFiniteRatio: Ratio.optional(),
  engine: z.literal('kenlm').optional(),
  tokenizer: ArtifactRef.optional(),
})

/** Where `maxNonFiniteRatio` is not given. */
export const defaultNonFiniteRatio = 0.001

/** A document by where it lies: shard of the corpus and row in it. */
const Place = z.object({ shard: Count, row: Count })
const Ranked = Place.extend({ nll: z.number(), tokens: Count })
/** Documents by name: of highest and of lowest loss, and those without a finite one. */
export const Extremes = z.object({ highest: z.array(Ranked), lowest: z.array(Ranked), nonFinite: z.array(Place) })
export type Extremes = z.infer<typeof Extremes>

/** Width of a bin of `nllHistogram`, whose keys are floor(nats per token / width): percentiles of merged shards to 2 %. */
export const nllBinNats = 0.02

/** Optional is what version 1 did not count. `flop` = 2 · parameters · inputTokens; `paddedTokens`: inputTokens with the padding. */
export const ScorePplResult = z.object({
  scores: ArtifactRef,
  counts: z.object({
    docs: Count, scored: Count, nonFinite: Count.optional(), scoredTokens: Count, inputTokens: Count.optional(), paddedTokens: Count.optional(),
    sumNllNats: z.number(), flop: z.number().nonnegative().optional(), pplHistogram: z.record(z.string(), Count), nllHistogram: z.record(z.string(), Count).optional(),
  }),
  extremes: Extremes.optional(),
})
export const scorePpl = stage({
  name: 'score-ppl',
  version: 2,
  shape: { kind: 'map', manifests: ['tokens', 'index'], outputs: ['scores'], stageOnly: ['maxNonFiniteRatio'] },
  request: ScorePplRequest,
  result: ScorePplResult,
})
