import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count } from './units.ts'

/** The Hugging Face folder to publish: weights, tokenizer, card and lineage. Loaded once and compared before it is committed. */
export const ExportModelRequest = z.strictObject({
  model: ArtifactRef,
  base: ArtifactRef,
  card: z.strictObject({ title: z.string().max(200), language: z.array(z.string()).max(20), license: z.string().max(100), summary: z.string().max(4000) }),
  lineage: z.array(z.strictObject({ what: z.string().max(100), sha256: z.string(), uri: z.string() })).max(100),
})
export const ExportModelResult = z.object({ model: ArtifactRef, path: z.string(), parameters: Count, files: Count, weightsSha256: z.string() })
export const exportModel = stage({ name: 'export-model', version: 1, shape: { kind: 'whole' }, request: ExportModelRequest, result: ExportModelResult })
