import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { VerdictCounts } from './filter.ts'
import { stage } from './stage.ts'
import { Count, Ratio, Seed } from './units.ts'

/** Exact and MinHash near-duplicates across all shards; of a cluster the first in corpus order is kept, validation documents before all others. */
export const DedupRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
  ngram: z.int().min(1).max(50).default(5),
  numPermutations: z.int().min(16).max(1024).default(128),
  jaccard: Ratio.default(0.7),
  seed: Seed.default(42),
})
export const DedupResult = z.object({ verdicts: ArtifactRef, counts: VerdictCounts.extend({ clusters: Count }) })
export const dedup = stage({ name: 'dedup', version: 1, shape: { kind: 'whole' }, request: DedupRequest, result: DedupResult })
