import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { VerdictCounts } from './filter.ts'
import { stage } from './stage.ts'
import { Count, Kind, Language } from './units.ts'

/** Scores of arXiv:2412.17743: 0 is spam, 5 outstanding; a scorer is a classifier with these for topics. */
export const qualityTaxonomy = 'quality/1'
export const qualityScores = ['0', '1', '2', '3', '4', '5'] as const

/** Drops, of these kinds and of languages that have a scorer, what scores less than `minScore`, with the reason quality. */
export const ScoreQualityRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
  scorers: z.record(Language, ArtifactRef),
  kinds: z.array(Kind).default(['web']),
  minScore: z.int().min(0).max(5).default(3),
})
export const ScoreQualityResult = z.object({ quality: ArtifactRef, verdicts: ArtifactRef, counts: VerdictCounts.extend({ byScore: z.record(z.string(), Count) }) })
export const scoreQuality = stage({
  name: 'score-quality',
  version: 1,
  shape: { kind: 'map', manifests: ['corpus', 'drops'], outputs: ['quality', 'verdicts'] },
  request: ScoreQualityRequest,
  result: ScoreQualityResult,
})
