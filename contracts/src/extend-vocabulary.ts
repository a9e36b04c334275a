import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count } from './units.ts'

/**
 * How the rows of a token that the old tokenizer lacks begin: as the mean of the old tokenizer's pieces of its text, or as the
 * mean of all rows.
 */
export const VocabularyMethod = z.enum(['subword-mean', 'mean'])

/** A model folder for another tokenizer: tokens of both keep their rows by their string. */
export const ExtendVocabularyRequest = z.strictObject({
  model: ArtifactRef,
  tokenizer: ArtifactRef,
  method: VocabularyMethod.default('subword-mean'),
  padToMultipleOf: z.int().min(1).max(4096).default(1),
})
export const ExtendVocabularyResult = z.object({ model: ArtifactRef, rowsBefore: Count, rowsAfter: Count, copied: Count, averaged: Count, meanOfAll: Count, padding: Count, weightsSha256: z.string() })
export const extendVocabulary = stage({ name: 'extend-vocabulary', version: 1, shape: { kind: 'whole' }, request: ExtendVocabularyRequest, result: ExtendVocabularyResult })
