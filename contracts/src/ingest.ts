import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count, Kind, Language, Name, Ratio } from './units.ts'

/** Which JSON field carries what; absent: the document has no such field, and the source's constant holds. */
export const FieldMapping = z.strictObject({
  text: z.string().default('text'),
  id: z.string().default('id'),
  language: z.string().default('lang'),
  kind: z.string().default('kind'),
  topic: z.string().default('topic'),
  origin: z.string().default('source'),
  license: z.string().default('license'),
})

/** `jsonl`: JSON Lines, plain, .gz or .zst by the file's name; `parquet`: a row is a document; `text`: a file is a document. */
export const SourceFormat = z.enum(['jsonl', 'parquet', 'text'])

/**
 * One file, or of format text a folder of them. A source that is a folder of jsonl or parquet files is one of these for each
 * file, whose path in the folder is `part`. `use: validate` documents are never trained on; filter keeps all of a `clean` source.
 */
export const Source = z.strictObject({
  name: Name,
  part: z.string().min(1).max(500).optional(),
  file: ArtifactRef,
  format: SourceFormat.default('jsonl'),
  fields: FieldMapping.default(FieldMapping.parse({})),
  language: Language.optional(),
  kind: Kind.optional(),
  license: z.string().max(200).optional(),
  use: z.enum(['train', 'validate']).default('train'),
  clean: z.literal(true).optional(),
})
export type Source = z.infer<typeof Source>

/** A corpus shard holds at most so many documents, by default 1,000,000, … */
export const ShardDocs = z.int().min(1).max(100_000_000)
/** … and bytes of text (UTF-8), by default 256 MiB; a longer document has a shard to itself. */
export const ShardBytes = z.int().min(1).max(2 ** 40)

/**
 * Lines in = kept + quarantined, exactly; over `maxQuarantineRatio` of all lines the stage fails with the first ten. A source
 * becomes as many corpus shards as it needs.
 */
export const IngestRequest = z.strictObject({
  sources: z.array(Source).min(1).max(1000),
  maxQuarantineRatio: Ratio.default(0.001),
  shardDocs: ShardDocs.optional(),
  shardBytes: ShardBytes.optional(),
})
export const IngestResult = z.object({
  corpus: ArtifactRef,
  quarantine: ArtifactRef,
  counts: z.object({ lines: Count, kept: Count, quarantined: Count, keptBytes: Count, byReason: z.record(z.string(), Count), bySource: z.record(z.string(), Count), byLanguage: z.record(z.string(), Count) }),
})
export const ingest = stage({
  name: 'ingest',
  version: 2,
  shape: { kind: 'map', items: 'sources', outputs: ['corpus', 'quarantine'], stageOnly: ['maxQuarantineRatio'] },
  request: IngestRequest,
  result: IngestResult,
})
