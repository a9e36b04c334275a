import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { ShardBytes, ShardDocs } from './ingest.ts'
import { stage } from './stage.ts'
import { Count, Kind, Language, Name } from './units.ts'

/** The id that ends a document in a file of tokens; absent: the tokenizer's own end of text. */
export const EndOfDocument = z.int().min(0).max(2 ** 31)

/** A Megatron-LM pair: `file` is x.bin, `index` x.idx. Files of a folder are one of these each, their path in it is `part`. */
export const TokenFile = z.strictObject({
  name: Name,
  part: z.string().min(1).max(500).optional(),
  file: ArtifactRef,
  index: ArtifactRef,
  language: Language,
  kind: Kind,
  license: z.string().max(200).optional(),
  eod: EndOfDocument.optional(),
})

/**
 * Token files as a pool: the ids as they are, without those that end a document, and the text that the tokenizer makes of them. Documents
 * in = docs + empty. An id that is none of the tokenizer's, and an index that is not whole, end the stage.
 */
export const ImportTokensRequest = z.strictObject({
  files: z.array(TokenFile).min(1).max(1000),
  tokenizer: ArtifactRef,
  shardDocs: ShardDocs.optional(),
  shardBytes: ShardBytes.optional(),
})
export const ImportTokensResult = z.object({
  corpus: ArtifactRef,
  tokens: ArtifactRef,
  index: ArtifactRef,
  counts: z.object({ documents: Count, docs: Count, empty: Count, tokens: Count, bytes: Count, eodStripped: Count, eodInside: Count, byLanguage: z.record(z.string(), Count) }),
})
export const importTokens = stage({
  name: 'import-tokens',
  version: 1,
  shape: { kind: 'map', items: 'files', outputs: ['corpus', 'tokens', 'index'] },
  request: ImportTokensRequest,
  result: ImportTokensResult,
})
