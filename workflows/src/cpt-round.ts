import type { ArtifactRef } from '@cpt/contracts/artifact'
import type { ResolvedRun } from '@cpt/contracts/activities'
import type { PreparedCorpus } from '@cpt/contracts/committed-corpus'
import type { StratumCount } from '@cpt/contracts/count-strata'
import type { PlanStage } from '@cpt/contracts/cpt-run'
import type { PerplexityChange, PerplexityMeasurement } from '@cpt/contracts/evaluate-perplexity'
import { scheduleOf } from '@cpt/contracts/schedule-of'
import type { TrainStart } from '@cpt/contracts/train'
import { ApplicationFailure } from '@temporalio/workflow'
import { z } from 'zod'
import { validationSetsOf, type SyntheticCorpus } from './corpus-preparation.ts'
import { MixtureImpossible, planStrata, type PlannedRatios, type TopicRatios } from './plan-strata.ts'
import { reweight, type TopicChange } from './reweight.ts'
import type { ResultOf, Run } from './run.ts'
import { acrossTokenizers } from './with-vocabulary.ts'

/** What one round hands to the next: where training stands, what was drawn, the topic ratios, the last measurement. */
export interface RoundState {
  start: z.input<typeof TrainStart>
  model: ArtifactRef
  trainedTokens: number
  drawn: ArtifactRef | null
  topics: TopicRatios
  measurement: PerplexityMeasurement
}
export interface RoundSetting {
  stage: PlanStage
  round: number
  roundTokens: number
  totalTokens: number
  corpus: PreparedCorpus
  synthetic: SyntheticCorpus | null
  /** Whether the change of every topic is of interest: a trial of a sweep is judged by its losses alone. */
  compared?: boolean
}

const Ratios = z.record(z.string(), z.record(z.string(), z.number()))
const Planned: z.ZodType<PlannedRatios> = z.object({
  strata: z.array(z.object({ language: z.string(), kind: z.enum(['web', 'encyclopedia', 'book', 'qa', 'paper', 'math', 'code', 'synthetic']), topic: z.string().nullable(), ratio: z.number() })),
  topics: Ratios,
  notes: z.array(z.string()),
})

/** One round: decide the ratios, plan the tokens, train, measure; then move the topic ratios by the perplexity change. */
export const cptRound = async (run: Run, resolved: ResolvedRun, setting: RoundSetting, before: RoundState): Promise<RoundState> => {
  const { spec, tokenizer } = resolved
  const { stage, round, roundTokens, totalTokens, corpus, synthetic } = setting
  const at = (what: string): string => `${stage.name}/round-${round}/${what}`
  const counts = [...corpus.counts, ...(synthetic?.counts ?? [])]
  const ratios = await run.decide('mixture', at('mixture'), { mixture: stage.mixture, topics: before.topics }, plannedOrRefused(stage, counts, before.topics), Planned)

  const { plan } = await run.stage(at('sample-mixture'), 'sampleMixture', {
    pools: [corpus.pool, ...(corpus.imported === undefined ? [] : [corpus.imported]), ...(synthetic === null ? [] : [synthetic.pool])],
    tokenizer,
    strata: ratios.strata,
    tokenBudget: roundTokens,
    sequenceTokens: spec.training.sequenceTokens,
    order: stage.order,
    curriculumLanguages: stage.curriculumLanguages,
    band: { fromTokens: (round - 1) * roundTokens, toTokens: round * roundTokens, totalTokens: stage.rounds * roundTokens },
    previous: before.drawn,
    seed: spec.seed + round,
  }, { placement: spec.placement.data, note: (r) => `${r.numPieces} pieces of ${r.numDocs} documents, at most ${Math.ceil(r.maxOffShareTokens)} tokens off share` })

  const trained = await run.stage(at('train'), 'train', {
    ...(spec.training.engine === undefined ? {} : { engine: spec.training.engine }),
    start: before.start,
    plan,
    tokenizer,
    tokenBudget: roundTokens,
    sequenceTokens: spec.training.sequenceTokens,
    globalBatchTokens: spec.training.globalBatchTokens,
    schedule: scheduleOf(spec, totalTokens, before.trainedTokens),
    optimizer: spec.training.optimizer,
    dtype: spec.training.dtype,
    seed: spec.seed,
    validation: validationOf(spec, corpus),
    ...(spec.training.documentMasking === undefined ? {} : { documentMasking: spec.training.documentMasking }),
    // a run that was resolved before guards were usual has none
    ...(spec.training.guard == null ? {} : { guard: spec.training.guard }),
    ...(spec.training.validateEverySteps === undefined ? {} : { validateEverySteps: spec.training.validateEverySteps }),
  }, { placement: spec.placement.train, note: trainNote })

  const { strata } = setting.compared === false ? { strata: [] } : await run.stage(at('compare-perplexity'), 'comparePerplexity', { before: before.measurement.perDoc, after: trained.measurement.perDoc, ...(before.trainedTokens === 0 ? acrossTokenizers(resolved) : {}) }, {
    placement: spec.placement.data,
  })
  const topics = stage.reweight && round < stage.rounds ? await reweightTopics(run, at('reweight'), resolved, ratios.topics, strata) : before.topics
  const taken = isLast(setting, spec) && spec.training.take === 'best' ? await bestOf(run, at('best-perplexity'), resolved, corpus, trained) : trained
  const next = round < stage.rounds ? spec.training.optimizerBetweenRounds : spec.training.optimizerBetweenStages
  return { start: { kind: 'checkpoint', checkpoint: trained.checkpoint, optimizer: next }, model: taken.model, trainedTokens: before.trainedTokens + trained.tokens, drawn: plan, topics, measurement: taken.measurement }
}

/** Whether nothing is trained after this round: only then another model than the last step's may be taken. */
const isLast = ({ stage, round }: RoundSetting, spec: ResolvedRun['spec']): boolean => stage.name === spec.plan.at(-1)?.name && round === stage.rounds

/** The model of the best step, with what every document of the frozen sets shows of it. */
const bestOf = async (run: Run, key: string, { spec }: ResolvedRun, corpus: PreparedCorpus, trained: ResultOf<'train'>): Promise<Pick<RoundState, 'model' | 'measurement'>> => {
  const { best } = trained
  if (best === undefined || best.step === trained.steps) return trained
  const { measurement } = await run.stage(key, 'evaluatePerplexity', { model: best.model, validation: validationOf(spec, corpus), dtype: spec.training.dtype }, {
    placement: spec.placement.train, note: () => `the best model, of step ${best.step}: ${best.nllPerToken.toFixed(3)} nats per token`,
  })
  return { model: best.model, measurement }
}

const validationOf = (spec: ResolvedRun['spec'], corpus: PreparedCorpus) => ({ sets: validationSetsOf(corpus), windowTokens: spec.evaluation.windowTokens, maxTokensPerDoc: spec.evaluation.maxTokensPerDoc })

/** A mixture the data cannot carry is an input that cannot work: the run ends and says which share has nothing behind it. */
const plannedOrRefused = (stage: PlanStage, counts: readonly StratumCount[], topics: TopicRatios): PlannedRatios => {
  try {
    return planStrata(stage.mixture, counts, stage.reweight ? topics : {})
  } catch (e) {
    if (e instanceof MixtureImpossible) throw ApplicationFailure.nonRetryable(`plan ${stage.name}: ${e.message}`, 'InvalidInput')
    throw e
  }
}

const Moved = z.object({ ratios: Ratios, factors: Ratios, notes: z.array(z.string()) })

/** New topic ratios for each language, kept with the measurements they come from. */
const reweightTopics = async (run: Run, key: string, { spec }: ResolvedRun, ratios: TopicRatios, changes: readonly PerplexityChange[]): Promise<TopicRatios> => {
  const byLanguage = Object.entries(ratios).map(([language, topics]) => {
    const measured = Object.fromEntries(changes.filter((c) => c.set === 'corpus' && c.kind === 'web' && c.language === language).map((c) => [c.topic ?? '', changeOf(c, spec.reweight.measure)]))
    return [language, reweight(topics, measured, spec.reweight)] as const
  })
  const output = {
    ratios: Object.fromEntries(byLanguage.map(([l, r]) => [l, r.ratios])),
    factors: Object.fromEntries(byLanguage.map(([l, r]) => [l, r.factors])),
    notes: byLanguage.flatMap(([l, r]) => r.notes.map((n) => `${l}: ${n}`)),
  }
  return (await run.decide('reweight', key, { ratios, changes: changes.filter((c) => c.kind === 'web'), settings: spec.reweight }, output, Moved)).ratios
}

const changeOf = (c: PerplexityChange, measure: 'ppl' | 'nll'): TopicChange =>
  measure === 'ppl' ? { before: c.pplBefore, after: c.pplAfter, standardError: c.sePpl } : { before: c.nllBefore, after: c.nllAfter, standardError: c.seNll }

const trainNote = (r: ResultOf<'train'>): string =>
  `${r.steps} steps, ${r.tokens} tokens, loss ${r.finalLoss.toFixed(3)}${r.restarts.length === 0 ? '' : `, taken up again at step ${r.restarts.map((x) => x.step).join(', ')}`}${(r.amendments ?? []).length === 0 ? '' : `, ${r.amendments?.length} windows skipped`}${r.best === undefined ? '' : `, best at step ${r.best.step} (${r.best.nllPerToken.toFixed(3)} nats per token of the frozen sets)`}`
