import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { VerdictCounts } from './filter.ts'
import { stage } from './stage.ts'
import { Count, Name, Ratio } from './units.ts'

/** Drops documents that carry benchmark questions: n-grams by a named tokenizer (arXiv:2412.17743, appendix on decontamination). */
export const DecontaminateRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
  benchmarks: z.array(z.strictObject({ name: Name, items: ArtifactRef })),
  tokenizer: z.enum(['words-v1']).default('words-v1'),
  ngram: z.int().min(2).max(100).default(20),
  ignoreGramsOver: Count.default(4),
  maxHitRatio: Ratio.default(0.1),
  maxItemRatio: Ratio.default(0.5),
})
/** `benchmarks`: items of each, and those not looked for: under 20 letters (a Han character is two), or shared by too many. */
export const DecontaminateResult = z.object({
  verdicts: ArtifactRef,
  counts: VerdictCounts.extend({ byBenchmark: z.record(z.string(), Count) }),
  benchmarks: z.record(z.string(), z.object({ items: Count, tooShort: Count, idioms: Count })).optional(),
})
export const decontaminate = stage({
  name: 'decontaminate',
  version: 2,
  shape: { kind: 'map', manifests: ['corpus', 'drops'], outputs: ['verdicts'] },
  request: DecontaminateRequest,
  result: DecontaminateResult,
})
