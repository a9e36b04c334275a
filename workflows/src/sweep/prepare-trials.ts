import type { ResolvedRun } from '@cpt/contracts/activities'
import type { Prepared } from '../chapter.ts'
import { prepareCorpus, prepareSynthetic, validationSetsOf } from '../corpus-preparation.ts'
import type { Run } from '../run.ts'
import { lossesOf } from './measure.ts'

/** What all trials of one base stand on: the corpus, and the base's own losses. */
export const prepareTrials = async (run: Run, resolved: ResolvedRun): Promise<Prepared> => {
  const { spec, base } = resolved
  const synthetic = await prepareSynthetic(run, resolved)
  const corpus = await prepareCorpus(run, resolved)
  const validation = { sets: validationSetsOf(corpus), windowTokens: spec.evaluation.windowTokens, maxTokensPerDoc: spec.evaluation.maxTokensPerDoc }
  const { measurement: ofBase } = await run.stage('base/perplexity', 'evaluatePerplexity', { model: base, validation, dtype: spec.training.dtype }, { placement: spec.placement.train })
  // a sweep that cannot be judged ends before its trials, not after them
  lossesOf(ofBase.strata, spec.targetLanguage)
  return { corpus, synthetic, ofBase }
}
