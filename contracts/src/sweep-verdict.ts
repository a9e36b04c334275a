import { z } from 'zod'
import type { ResolvedRun } from './activities.ts'
import { SweepSpec } from './almr-lr-sweep.ts'
import { ArtifactRef } from './artifact.ts'
import { CptRunSpec } from './cpt-run.ts'
import { SweepVerdict, TrialOutcome } from './sweep.ts'
import { Count } from './units.ts'

type Fields<T> = Record<keyof T, z.ZodType>

const SourceFile = z.object({ name: z.string(), part: z.string().optional(), file: ArtifactRef, index: ArtifactRef.optional() } satisfies Fields<ResolvedRun['sources'][number]>)

/** What `resolveInput` returns, as it is read back from a file: every field, or a transfer would go on without it. */
const ResolvedRunFile = z.object({
  spec: CptRunSpec,
  sources: z.array(SourceFile),
  benchmarks: z.array(z.object({ name: z.string(), items: ArtifactRef })),
  base: ArtifactRef,
  tokenizer: ArtifactRef,
  extended: ArtifactRef.optional(),
  scorer: ArtifactRef.optional(),
  scorerParameters: Count.optional(),
  encoders: z.record(z.string(), ArtifactRef).optional(),
  corpus: z.object({ name: z.string(), number: Count }).optional(),
  parameters: Count,
} satisfies Fields<ResolvedRun>)

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
