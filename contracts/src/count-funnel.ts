import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count } from './units.ts'

/** The way of the documents by source and language. `steps` names the stages whose verdicts `drops` are, in their order. */
export const CountFunnelRequest = z
  .strictObject({ corpus: ArtifactRef, steps: z.array(z.string().min(1).max(100)), drops: z.array(ArtifactRef), index: ArtifactRef })
  .refine(({ steps, drops }) => steps.length === drops.length && new Set(steps).size === steps.length, { path: ['steps'], message: 'expected a name of its own for each of drops' })

/** `left`: documents after each step; `tokens` and `bytes` (UTF-8) are of what is left after the last one. */
export const FunnelLine = z.object({ docs: Count, left: z.record(z.string(), Count), tokens: Count, bytes: Count })
export type FunnelLine = z.infer<typeof FunnelLine>

/** `bySource`: source, then language; `taken`: source, then step, then reason, each document at the first step that took it. */
export const CountFunnelResult = z.object({
  counts: z.object({
    docs: Count,
    bySource: z.record(z.string(), z.record(z.string(), FunnelLine)),
    taken: z.record(z.string(), z.record(z.string(), z.record(z.string(), Count))),
  }),
})
export const countFunnel = stage({
  name: 'count-funnel',
  version: 1,
  shape: { kind: 'map', manifests: ['corpus', 'drops', 'index'], outputs: [] },
  request: CountFunnelRequest,
  result: CountFunnelResult,
})
