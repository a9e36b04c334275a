import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count, Name, Ratio, Seed } from './units.ts'

/**
 * One benchmark by lm-evaluation-harness on local items {id, question, options, answer, kind}. `mcq`: acc by
 * loglikelihood of the option letters; `generate`: exact match of the final number or string; `solution`: nats per byte
 * of the reference solution (code is never run without a sandbox).
 */
export const EvaluateBenchmarkRequest = z.strictObject({
  model: ArtifactRef,
  task: z.strictObject({
    name: Name,
    kind: z.enum(['mcq', 'generate', 'solution']),
    items: ArtifactRef,
    shots: z.int().min(0).max(64),
    limit: z.int().min(1).nullable().default(null),
    maxGeneratedTokens: z.int().min(1).max(4096).default(64),
  }),
  harness: z.literal('lm-eval/0.4.13').default('lm-eval/0.4.13'),
  dtype: z.enum(['float32', 'bfloat16']).default('float32'),
  seed: Seed.default(42),
})
export const BenchmarkScore = z.object({ task: Name, metric: z.enum(['acc', 'exact_match', 'nats_per_byte']), higherIsBetter: z.boolean(), value: z.number(), standardError: z.number(), items: Count, shots: Count, chance: Ratio.nullable() })
export type BenchmarkScore = z.infer<typeof BenchmarkScore>
export const EvaluateBenchmarkResult = z.object({ score: BenchmarkScore, perItem: ArtifactRef })
export const evaluateBenchmark = stage({ name: 'evaluate-benchmark', version: 1, shape: { kind: 'whole' }, request: EvaluateBenchmarkRequest, result: EvaluateBenchmarkResult })

/** Paired difference by item between two evaluations of the same task, with its standard error. */
export const CompareBenchmarkRequest = z.strictObject({ before: ArtifactRef, after: ArtifactRef })
export const CompareBenchmarkResult = z.object({ items: Count, before: z.number(), after: z.number(), difference: z.number(), standardError: z.number() })
export const compareBenchmark = stage({ name: 'compare-benchmark', version: 1, shape: { kind: 'whole' }, request: CompareBenchmarkRequest, result: CompareBenchmarkResult })
