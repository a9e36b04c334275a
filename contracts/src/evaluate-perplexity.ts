import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { Stratum } from './hold-out.ts'
import { stage } from './stage.ts'
import { Count, Tokens } from './units.ts'

/** How validation perplexity is measured; both sides of a comparison must agree on it. */
export const ValidationSettings = z.strictObject({
  sets: ArtifactRef,
  windowTokens: z.int().min(8),
  maxTokensPerDoc: z.int().min(8),
})

/** Token-weighted loss of one stratum of the frozen sets: nats per token and per UTF-8 byte (only the latter compares across tokenizers). */
export const StratumLoss = Stratum.extend({ set: z.enum(['corpus', 'retention']), docs: Count, tokens: Tokens, bytes: Count, nllPerToken: z.number(), nllPerByte: z.number() })
export type StratumLoss = z.infer<typeof StratumLoss>
/** Per-document results as an artifact, the strata as numbers. */
export const PerplexityMeasurement = z.object({ perDoc: ArtifactRef, strata: z.array(StratumLoss) })
export type PerplexityMeasurement = z.infer<typeof PerplexityMeasurement>

export const EvaluatePerplexityRequest = z.strictObject({ model: ArtifactRef, validation: ValidationSettings, dtype: z.enum(['float32', 'bfloat16']).default('float32') })
export const EvaluatePerplexityResult = z.object({ measurement: PerplexityMeasurement })
export const evaluatePerplexity = stage({ name: 'evaluate-perplexity', version: 1, shape: { kind: 'whole' }, request: EvaluatePerplexityRequest, result: EvaluatePerplexityResult })

/**
 * Paired change per stratum with a document-bootstrap standard error (domain.md, noise guard of the reweighting).
 * `across: tokenizers`: the measurements were made with different tokenizers, so each document's loss after is taken per byte,
 * and told for as many bytes as a token before has: in nats per token of the tokenizer before, on both sides. Absent:
 * another number of tokens is refused.
 */
export const ComparePerplexityRequest = z.strictObject({ before: ArtifactRef, after: ArtifactRef, resamples: z.int().min(100).default(1000), seed: z.int().nonnegative().default(42), across: z.literal('tokenizers').optional() })
export const PerplexityChange = Stratum.extend({ set: z.enum(['corpus', 'retention']), docs: Count, nllBefore: z.number(), nllAfter: z.number(), deltaNll: z.number(), seNll: z.number(), pplBefore: z.number(), pplAfter: z.number(), deltaPpl: z.number(), sePpl: z.number() })
export type PerplexityChange = z.infer<typeof PerplexityChange>
/** `groups` pools strata: `retention`, and each language of the corpus set. */
export const ComparePerplexityResult = z.object({ strata: z.array(PerplexityChange), groups: z.array(z.object({ group: z.string(), docs: Count, nllBefore: z.number(), nllAfter: z.number(), deltaNll: z.number(), seNll: z.number(), deltaNllPerByte: z.number() })) })
export const comparePerplexity = stage({ name: 'compare-perplexity', version: 1, shape: { kind: 'whole' }, request: ComparePerplexityRequest, result: ComparePerplexityResult })
