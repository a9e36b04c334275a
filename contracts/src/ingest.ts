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

/** One source file, JSON Lines: plain, .gz or .zst by its name. `use: validate` documents are never trained on. */
export const Source = z.strictObject({
  name: Name,
  file: ArtifactRef,
  format: z.enum(['jsonl']).default('jsonl'),
  fields: FieldMapping.default(FieldMapping.parse({})),
  language: Language.optional(),
  kind: Kind.optional(),
  license: z.string().max(200).optional(),
  use: z.enum(['train', 'validate']).default('train'),
})
export type Source = z.infer<typeof Source>

/** Lines in = kept + quarantined, exactly; over `maxQuarantineRatio` of all lines the stage fails with the first ten. */
export const IngestRequest = z.strictObject({
  sources: z.array(Source).min(1).max(1000),
  maxQuarantineRatio: Ratio.default(0.001),
})
export const IngestResult = z.object({
  corpus: ArtifactRef,
  quarantine: ArtifactRef,
  counts: z.object({ lines: Count, kept: Count, quarantined: Count, keptBytes: Count, byReason: z.record(z.string(), Count), bySource: z.record(z.string(), Count), byLanguage: z.record(z.string(), Count) }),
})
export const ingest = stage({
  name: 'ingest',
  version: 1,
  shape: { kind: 'map', items: 'sources', outputs: ['corpus', 'quarantine'], stageOnly: ['maxQuarantineRatio'] },
  request: IngestRequest,
  result: IngestResult,
})
