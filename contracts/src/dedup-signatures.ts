import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count, Seed } from './units.ts'

/** What MinHash signatures are made with; dedup has to be asked for the same. */
export const SignatureSettings = z.strictObject({
  ngram: z.int().min(1).max(50).default(5),
  numPermutations: z.int().min(16).max(1024).default(128),
  seed: Seed.default(42),
})

/** Of every document that no earlier stage has dropped a digest of its text and a MinHash signature of its word n-grams (Han: of characters). */
export const DedupSignaturesRequest = z.strictObject({ corpus: ArtifactRef, drops: z.array(ArtifactRef), ...SignatureSettings.shape })
export const DedupSignaturesResult = z.object({ signatures: ArtifactRef, counts: z.object({ docs: Count, withoutWords: Count }) })
export const dedupSignatures = stage({
  name: 'dedup-signatures',
  version: 1,
  shape: { kind: 'map', manifests: ['corpus', 'drops'], outputs: ['signatures'] },
  request: DedupSignaturesRequest,
  result: DedupSignaturesResult,
})
