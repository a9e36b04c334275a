import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { Placeholders } from './find-personal-data.ts'
import { stage } from './stage.ts'
import { Count } from './units.ts'

/** uint32 token shards without BOS/EOS (those belong to the plan), and a row-aligned index (offset, num_tokens, num_bytes; 0 for dropped rows). `personalData` (find-personal-data's spans) is replaced by `placeholders`. */
export const TokenizeRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
  tokenizer: ArtifactRef,
  personalData: ArtifactRef.optional(),
  placeholders: Placeholders.optional(),
})
export const TokenizeResult = z.object({
  tokens: ArtifactRef,
  index: ArtifactRef,
  counts: z.object({ docs: Count, tokens: Count, bytes: Count, byLanguage: z.record(z.string(), Count) }),
})
export const tokenize = stage({
  name: 'tokenize',
  version: 1,
  shape: { kind: 'map', manifests: ['corpus', 'drops'], optional: ['personalData'], outputs: ['tokens', 'index'] },
  request: TokenizeRequest,
  result: TokenizeResult,
})
