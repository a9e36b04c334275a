import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { Stratum } from './hold-out.ts'
import { stage } from './stage.ts'
import { Count } from './units.ts'

/** What there is to mix: documents, tokens and bytes left in each (language, kind, topic) after all drops. */
export const CountStrataRequest = z.strictObject({ corpus: ArtifactRef, topics: ArtifactRef.nullable(), index: ArtifactRef })
export const StratumCount = Stratum.extend({ docs: Count, tokens: Count, bytes: Count })
export type StratumCount = z.infer<typeof StratumCount>
export const CountStrataResult = z.object({ strata: z.array(StratumCount) })
export const countStrata = stage({ name: 'count-strata', version: 1, shape: { kind: 'whole' }, request: CountStrataRequest, result: CountStrataResult })
