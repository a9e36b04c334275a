import { z } from 'zod'
import { Kind, Language, Ratio } from './units.ts'

const sumsToOne = (ratios: Record<string, number | undefined>): boolean => Math.abs(Object.values(ratios).reduce<number>((a, b) => a + (b ?? 0), 0) - 1) < 1e-6

/** Shares by language; `synthetic` is a group of its own whatever its language. */
export const LanguageRatios = z
  .record(z.union([Language, z.literal('synthetic')]), Ratio)
  .refine(sumsToOne, { error: 'expected ratios that sum to 1' })
/** Shares by kind of source within one language. */
export const KindRatios = z.partialRecord(Kind, Ratio).refine(sumsToOne, { error: 'expected ratios that sum to 1' })
/** Shares by topic within one language. */
export const TopicRatios = z.record(z.string().min(1).max(200), Ratio).refine(sumsToOne, { error: 'expected ratios that sum to 1' })

/**
 * Language ratio × kind ratio × topic ratio (web only). Kinds left out of `kinds` follow what there is; a kind with a
 * ratio but no data is an error, never silently redistributed. `topics` is where topic ratios start; reweighting moves them.
 * It may name ratios by language, of topics or of what stands for them (`source:<name>`); other languages are natural.
 */
export const Mixture = z.strictObject({
  languages: LanguageRatios,
  kinds: z.record(Language, KindRatios).default({}),
  topics: z.union([z.enum(['natural', 'uniform']), z.record(Language, TopicRatios)]).default('natural'),
}).superRefine((mixture, ctx) => {
  for (const language of Object.keys(mixture.kinds)) {
    if (!Object.hasOwn(mixture.languages, language)) ctx.addIssue({ code: 'custom', path: ['kinds', language], message: `expected one of the languages that have a share (${Object.keys(mixture.languages).join(', ')})` })
  }
})
export type Mixture = z.infer<typeof Mixture>

/**
 * Reweighting of topics by perplexity change (arXiv:2407.18743): r ← r·f / Σ r·f, f = 1 + α·δ·w. k soft-thresholds the
 * change by its standard error, γ bounds the divisor from below; k = γ = 0 gives the paper exactly. The result is
 * projected onto {Σ = 1, r ≥ floor, |r − r′| ≤ cap}.
 */
export const ReweightSettings = z.strictObject({
  alpha: z.number().min(0).max(0.999).default(0.5),
  weights: z.record(z.string(), z.number().min(0).max(1)).default({}),
  measure: z.enum(['ppl', 'nll']).default('ppl'),
  noiseK: z.number().min(0).default(1),
  gamma: z.number().min(0).default(0.02),
  floor: Ratio.default(0.005),
  cap: Ratio.default(0.03),
})
export type ReweightSettings = z.infer<typeof ReweightSettings>
