import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count, Kind, Ratio } from './units.ts'

const off = <T extends z.ZodType>(threshold: T) => threshold.nullable()
const Length = z.number().nonnegative()

/**
 * Gopher (arXiv:2112.11446, A.1.1), for these kinds of source. Chinese has two characters to the word of an n-gram, and none of
 * the rules on words. Defaults are Gopher's where they drop at most 2 of the sample's 1,144 web pages, all of which are
 * good text, and off otherwise; docs/data-formats.md has them all.
 */
export const GopherRules = z.strictObject({
  kinds: z.array(Kind).default(['web']),
  minWords: off(Count).default(null),
  maxWords: off(Count).default(100_000),
  minMeanWordChars: off(Length).default(null),
  maxMeanWordChars: off(Length).default(10),
  maxHashRatio: off(Ratio).default(0.1),
  maxEllipsisRatio: off(Ratio).default(0.1),
  maxBulletLineRatio: off(Ratio).default(null),
  maxEllipsisLineRatio: off(Ratio).default(0.3),
  minAlphabeticWordRatio: off(Ratio).default(null),
  minStopWords: off(Count).default(null),
  maxDuplicateParagraphRatio: off(Ratio).default(null),
  maxDuplicateParagraphCharRatio: off(Ratio).default(0.2),
  maxDuplicateLineRatio: off(Ratio).default(null),
  maxDuplicateLineCharRatio: off(Ratio).default(null),
  /** For the most frequent 2, 3 and 4 words. */
  maxTopGramRatios: off(z.array(Ratio).length(3)).default([0.2, 0.18, 0.16]),
  /** For 5 to 10 words that stood before. */
  maxDuplicateGramRatios: off(z.array(Ratio).length(6)).default(null),
})

/** C4 (arXiv:1910.10683, 2.2), for these kinds of source, Chinese apart. No line is taken out: lines that C4 would take out do not count. */
export const C4Rules = z.strictObject({
  kinds: z.array(Kind).default(['web']),
  loremIpsum: z.boolean().default(true),
  curlyBracket: z.boolean().default(true),
  minSentences: off(Count).default(5),
  minLineWords: Count.default(3),
  maxWordChars: Count.default(1000),
})

/** FineWeb (arXiv:2406.17557, 3.6), for these kinds of source, Chinese apart. */
export const FinewebRules = z.strictObject({
  kinds: z.array(Kind).default(['web']),
  minEndedLineRatio: off(Ratio).default(0.12),
  maxShortLineRatio: off(Ratio).default(0.67),
  shortLineChars: Count.default(30),
  maxDuplicateLineCharRatio: off(Ratio).default(0.01),
  maxLineFeedsPerWord: off(Length).default(0.3),
})

/** For text that is Chinese for the most part (after YuLan-GARDEN); `minHanRatio` for what says it is Chinese. */
export const ChineseRules = z.strictObject({
  kinds: z.array(Kind).default(['web']),
  minHanRatio: off(Ratio).default(0.3),
  minPunctuationRatio: off(Ratio).default(0.02),
  maxPunctuationRatio: off(Ratio).default(0.4),
  minMeanLineChars: off(Length).default(5),
  maxOpenLineRatio: off(Ratio).default(null),
})

/** For code, beside the two first ones (after StarCoder, arXiv:2305.06161). */
export const CodeRules = z.strictObject({
  maxMeanLineChars: off(Length).default(100),
  maxDigitRatio: off(Ratio).default(0.4),
  maxWordChars: off(Count).default(250),
  generated: z.boolean().default(true),
})

/**
 * Language identification (py3langid) on the first `chars` characters, for these kinds of source: a document that is in
 * another language than it says with more than this probability is dropped. It takes as long as all other rules together.
 */
export const LanguageRules = z.strictObject({
  kinds: z.array(Kind).default(['web']),
  maxOtherProbability: Ratio.default(0.9),
  chars: z.int().min(20).default(300),
})

/** Drops, of these kinds, what has more than `maxItems` e-mail addresses, telephone and identity numbers (Chinese by check digit, US). */
export const PersonalRules = z.strictObject({ kinds: z.array(Kind).default(['web']), maxItems: Count.default(5) })

/**
 * Thresholds of the named rules; lengths in Han characters or words, ratios of the document's characters, words or lines; null: off.
 * The groups are off where they are not given, `gopher: {}` is on with its defaults. docs/data-formats.md has what each rule
 * drops of the sample corpus: the first eleven 6 of its 3,111 documents, and 119 of its 120 boilerplate, garbled and too short ones.
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
  gopher: GopherRules.optional(),
  c4: C4Rules.optional(),
  fineweb: FinewebRules.optional(),
  chinese: ChineseRules.optional(),
  code: CodeRules.optional(),
  language: LanguageRules.optional(),
  personal: PersonalRules.optional(),
})

/** Verdict per document: kept, or dropped by the first rule that fires, by name. */
export const FilterRequest = z.strictObject({ corpus: ArtifactRef, rules: FilterRules.default(FilterRules.parse({})) })
export const VerdictCounts = z.object({ docs: Count, kept: Count, byReason: z.record(z.string(), Count), byLanguage: z.record(z.string(), Count) })
export const FilterResult = z.object({ verdicts: ArtifactRef, counts: VerdictCounts })
export const filter = stage({
  name: 'filter',
  version: 2,
  shape: { kind: 'map', manifests: ['corpus'], outputs: ['verdicts'] },
  request: FilterRequest,
  result: FilterResult,
})
