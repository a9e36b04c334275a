import { classifyTopics, trainTopicClassifier } from './topics.ts'
import { compareBenchmark, evaluateBenchmark } from './evaluate-benchmark.ts'
import { comparePerplexity, evaluatePerplexity } from './evaluate-perplexity.ts'
import { countFunnel } from './count-funnel.ts'
import { countStrata } from './count-strata.ts'
import { decontaminate } from './decontaminate.ts'
import { dedup } from './dedup.ts'
import { dedupSignatures } from './dedup-signatures.ts'
import { dryTrain } from './dry-train.ts'
import { exportModel } from './export-model.ts'
import { findPersonalData } from './find-personal-data.ts'
import { extendVocabulary } from './extend-vocabulary.ts'
import { filter } from './filter.ts'
import { holdOut } from './hold-out.ts'
import { importTokens } from './import-tokens.ts'
import { ingest } from './ingest.ts'
import { labelTopics } from './label-topics.ts'
import { sampleMixture } from './sample-mixture.ts'
import { scorePpl } from './score-ppl.ts'
import { scoreQuality } from './score-quality.ts'
import { synthesizeQa } from './synthesize-qa.ts'
import { tokenize } from './tokenize.ts'
import { train } from './train.ts'

/** Every stage that runs as a job, by activity name. */
export const stages = {
  ingest,
  importTokens,
  filter,
  dedupSignatures,
  dedup,
  decontaminate,
  findPersonalData,
  scoreQuality,
  labelTopics,
  trainTopicClassifier,
  classifyTopics,
  holdOut,
  tokenize,
  scorePpl,
  countStrata,
  countFunnel,
  synthesizeQa,
  sampleMixture,
  extendVocabulary,
  train,
  dryTrain,
  evaluatePerplexity,
  comparePerplexity,
  evaluateBenchmark,
  compareBenchmark,
  exportModel,
} as const
export type StageKey = keyof typeof stages
