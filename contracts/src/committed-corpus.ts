import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { StratumCount } from './count-strata.ts'
import { CorpusSpec } from './cpt-run.ts'
import { Name } from './units.ts'

/** What the data stages made: what rounds draw from, what there is of each stratum, and what models are measured on; null: its stage was off. */
export const PreparedCorpus = z.object({
  pool: z.object({ corpus: ArtifactRef, tokens: ArtifactRef, index: ArtifactRef, topics: ArtifactRef.nullable(), scores: ArtifactRef.nullable() }),
  /** Token files, which rounds draw from beside the pool. */
  imported: z.object({ corpus: ArtifactRef, tokens: ArtifactRef, index: ArtifactRef, topics: z.null(), scores: ArtifactRef.nullable() }).optional(),
  counts: z.array(StratumCount),
  validation: ArtifactRef.nullable(),
})
export type PreparedCorpus = z.infer<typeof PreparedCorpus>

/**
 * A corpus under a name, created only if absent at `corpora/<name>/<number 6 digits>.json`. The newest of a name is that of
 * the highest number; `sources` are the files as they were, by digest.
 */
export const CommittedCorpus = z.strictObject({
  format: z.literal('cpt-corpus/1'),
  name: Name,
  number: z.int().min(1),
  corpus: CorpusSpec,
  sources: z.array(z.strictObject({ name: Name, part: z.string().optional(), file: ArtifactRef, index: ArtifactRef.optional() })),
  prepared: PreparedCorpus,
  committedBy: z.strictObject({ workflowId: z.string(), firstRunId: z.string() }),
})
export type CommittedCorpus = z.infer<typeof CommittedCorpus>

export type CorpusToCommit = Omit<CommittedCorpus, 'format' | 'number'>

/** `unchanged`: the newest corpus of the name had this content already, and it was another run that committed it. */
export interface CorpusCommit {
  name: string
  number: number
  unchanged: boolean
}

/** What `corpusPreparation` ends with. */
export interface CorpusPreparationResult extends CorpusCommit {
  docs: number
  tokens: number
}
