import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count, Language, Ratio, Seed } from './units.ts'

/** Problems with computed answers as documents, `[Problem]` … `[Solution]` …; a corpus like ingest's, kind synthetic. */
export const SynthesizeQaRequest = z.strictObject({
  backend: z.enum(['template']).default('template'),
  numDocs: z.int().min(1).max(10_000_000),
  languages: z.array(Language).min(1).default(['en', 'zh']),
  families: z.array(z.enum(['arithmetic', 'units', 'programs'])).min(1).default(['arithmetic', 'units', 'programs']),
  wrongAnswerShare: Ratio.default(0),
  seed: Seed.default(42),
})
export const SynthesizeQaResult = z.object({ corpus: ArtifactRef, counts: z.object({ docs: Count, wrong: Count, byFamily: z.record(z.string(), Count), byLanguage: z.record(z.string(), Count) }) })
export const synthesizeQa = stage({ name: 'synthesize-qa', version: 1, shape: { kind: 'whole' }, request: SynthesizeQaRequest, result: SynthesizeQaResult })
