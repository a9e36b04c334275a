import { z } from 'zod'
import { SweepSpec } from './almr-lr-sweep.ts'
import { ArtifactRef } from './artifact.ts'
import { CptRunSpec } from './cpt-run.ts'
import { SweepVerdict, TrialOutcome } from './sweep.ts'
import { Count } from './units.ts'

/** A named file of a run with its digest. */
const NamedRef = { name: z.string() }

/** What `resolveInput` returns, as it is read back from a file. */
const ResolvedRunFile = z.object({
  spec: CptRunSpec,
  sources: z.array(z.object({ ...NamedRef, part: z.string().optional(), file: ArtifactRef })),
  benchmarks: z.array(z.object({ ...NamedRef, items: ArtifactRef })),
  base: ArtifactRef,
  tokenizer: ArtifactRef,
  scorer: ArtifactRef.optional(),
  corpus: z.object({ name: z.string(), number: Count }).optional(),
  parameters: Count,
})

/** `verdict.json`: the verdict of a sweep with all it was made from; a transfer cites it by digest. */
export const VerdictFile = z.object({
  format: z.literal('cpt-verdict-file/1'),
  workflowId: z.string(),
  sweep: SweepSpec,
  /** The run that its trials shared. */
  run: ResolvedRunFile,
  trials: z.array(TrialOutcome),
  verdict: SweepVerdict,
})
export type VerdictFile = z.infer<typeof VerdictFile>
