import type { ResolvedRun } from '@cpt/contracts/activities'
import type { Run } from './run.ts'

/** A run whose base gets another tokenizer has the base made for it first; any other is returned as it is. */
export const withVocabulary = async (run: Run, resolved: ResolvedRun): Promise<ResolvedRun> => {
  const { spec, base, tokenizer, extended } = resolved
  if (spec.base.tokenizer === undefined || extended !== undefined) return resolved
  const { model } = await run.stage('base/extend-vocabulary', 'extendVocabulary', {
    model: base, tokenizer, ...(spec.base.vocabularyMethod === undefined ? {} : { method: spec.base.vocabularyMethod }), ...(spec.base.vocabularyMultipleOf === undefined ? {} : { padToMultipleOf: spec.base.vocabularyMultipleOf }),
  }, { placement: spec.placement.data, note: (r) => `${r.rowsBefore} rows before, ${r.rowsAfter} after: ${r.copied} kept, ${r.averaged} from pieces, ${r.meanOfAll} from the mean of all` })
  return { ...resolved, extended: model }
}

/** How a measurement of the base compares with one of what was trained: per byte, where the run has another tokenizer. */
export const acrossTokenizers = ({ spec }: ResolvedRun): { across?: 'tokenizers' } => (spec.base.tokenizer === undefined ? {} : { across: 'tokenizers' })
