import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { VerdictCounts } from './filter.ts'
import { Placeholders } from './find-personal-data.ts'
import { stage } from './stage.ts'
import { Count, Kind, Language, Ratio, Seed } from './units.ts'

/** What a document counts as: topics are a stratum of web pages only. `set: retention` are `use: validate` sources. */
export const Stratum = z.strictObject({ language: Language, kind: Kind, topic: z.string().nullable() })
export type Stratum = z.infer<typeof Stratum>

/**
 * Freezes validation sets per (language, kind, topic): whole near-duplicate clusters, and as many documents as a paired
 * standard error of `targetSeNats` needs when paired differences have a deviation of `pairedSdNats`: n = (sd/se)². Without
 * `topics` strata are by language and kind; without `duplicates` (dedup's verdicts) every document is a cluster of its own.
 * `personalData` (find-personal-data's spans) is replaced by `placeholders` in the texts.
 */
export const HoldOutRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
  topics: ArtifactRef.optional(),
  duplicates: ArtifactRef.optional(),
  personalData: ArtifactRef.optional(),
  placeholders: Placeholders.optional(),
  targetSeNats: z.number().positive().default(0.05),
  pairedSdNats: z.number().positive().default(0.15),
  maxShare: Ratio.default(0.15),
  minDocs: z.int().min(1).default(3),
  maxDocChars: z.int().min(100).default(4000),
  seed: Seed.default(42),
})
export const HeldOutStratum = Stratum.extend({ set: z.enum(['corpus', 'retention']), docs: Count, expectedSeNats: z.number() })
export const HoldOutResult = z.object({ verdicts: ArtifactRef, validation: ArtifactRef, counts: VerdictCounts, strata: z.array(HeldOutStratum) })
export const holdOut = stage({ name: 'hold-out', version: 1, shape: { kind: 'whole' }, request: HoldOutRequest, result: HoldOutResult })
