import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { SignatureSettings } from './dedup-signatures.ts'
import { VerdictCounts } from './filter.ts'
import { stage } from './stage.ts'
import { Count, Ratio } from './units.ts'

/**
 * Exact and MinHash near-duplicates across all shards; of a cluster the first in corpus order is kept, validation documents before all others.
 * `signatures` are those of dedup-signatures over the same corpus, drops and settings; without them the stage makes them for itself.
 */
export const DedupRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
  signatures: ArtifactRef.optional(),
  ...SignatureSettings.shape,
  jaccard: Ratio.default(0.7),
})
export const DedupResult = z.object({ verdicts: ArtifactRef, counts: VerdictCounts.extend({ clusters: Count }) })
export const dedup = stage({ name: 'dedup', version: 2, shape: { kind: 'whole' }, request: DedupRequest, result: DedupResult })
