import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count } from './units.ts'

const Window = z.int().min(8)

/** Perplexity of every document by the model to be trained (arXiv:2407.18743, perplexity curriculum): nll f32 in nats/token, NaN where unscored. */
export const ScorePplRequest = z.strictObject({
  tokens: ArtifactRef,
  index: ArtifactRef,
  scorer: ArtifactRef,
  windowTokens: Window.default(2048),
  strideTokens: Window.default(2048),
  maxTokensPerDoc: Window.default(2048),
  dtype: z.enum(['float32', 'bfloat16']).default('float32'),
  minTokens: z.int().min(2).default(20),
})
export const ScorePplResult = z.object({
  scores: ArtifactRef,
  counts: z.object({ docs: Count, scored: Count, scoredTokens: Count, sumNllNats: z.number(), pplHistogram: z.record(z.string(), Count) }),
})
export const scorePpl = stage({
  name: 'score-ppl',
  version: 1,
  shape: { kind: 'map', manifests: ['tokens', 'index'], outputs: ['scores'] },
  request: ScorePplRequest,
  result: ScorePplResult,
})
