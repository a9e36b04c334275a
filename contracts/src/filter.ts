import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count, Ratio } from './units.ts'

/**
 * Thresholds of the named rules; lengths in Han characters or words, ratios of the document's characters, words or lines.
 * The defaults drop 6 of the 3,111 documents of the sample corpus, and 119 of its 120 boilerplate, garbled and too short ones.
 */
export const FilterRules = z.strictObject({
  minCharsHan: Count.default(20),
  minWords: Count.default(20),
  maxSymbolRatio: Ratio.default(0.45),
  minAlphabeticRatio: Ratio.default(0.35),
  maxDuplicateLineRatio: Ratio.default(0.5),
  maxTopNgramRatio: Ratio.default(0.3),
  minDistinctWordRatio: Ratio.default(0.1),
  maxBoilerplateLineRatio: Ratio.default(0.4),
  maxGarbledRatio: Ratio.default(0.003),
  minCodeAlphabeticRatio: Ratio.default(0.25),
  maxCodeLineChars: Count.default(1000),
})

/** Verdict per document: kept, or dropped by the first rule that fires, by name (rules after Gopher, C4, YuLan-GARDEN). */
export const FilterRequest = z.strictObject({ corpus: ArtifactRef, rules: FilterRules.default(FilterRules.parse({})) })
export const VerdictCounts = z.object({ docs: Count, kept: Count, byReason: z.record(z.string(), Count), byLanguage: z.record(z.string(), Count) })
export const FilterResult = z.object({ verdicts: ArtifactRef, counts: VerdictCounts })
export const filter = stage({
  name: 'filter',
  version: 1,
  shape: { kind: 'map', manifests: ['corpus'], outputs: ['verdicts'] },
  request: FilterRequest,
  result: FilterResult,
})
