import { Context } from '@temporalio/activity'
import type { ControlActivities, StageActivities } from '@cpt/contracts/activities'
import { stages } from '@cpt/contracts/stages'
import { commitCorpus } from './corpora.ts'
import type { Deps } from './deps.ts'
import { ensureStopped } from './ensure-stopped.ts'
import { pauseJobs, resumeJobs } from './pause-jobs.ts'
import { recordDecision } from './record-decision.ts'
import { writeSweepReport } from './report/sweep/write-sweep-report.ts'
import { writeReport } from './report/write-report.ts'
import { reapJobs } from './reap-jobs.ts'
import { resolveInput } from './resolve-input.ts'
import { resolveSweep } from './resolve-sweep.ts'
import { runStage } from './run-stage.ts'
import { resolveTransfer } from './sweep/resolve-transfer.ts'
import { trialCost } from './sweep/trial-cost.ts'
import { reapTrials, trialStates } from './sweep/trial-states.ts'
import { commitVerdict, readVerdict, rememberSweep, sweptBefore } from './sweep/verdicts.ts'

/** Every stage's activity, under the stage's name: the same function, told apart by the contract. */
export const createStageActivities = (deps: Deps): StageActivities => ({
  ingest: runStage(deps, stages.ingest),
  importTokens: runStage(deps, stages.importTokens),
  filter: runStage(deps, stages.filter),
  dedupSignatures: runStage(deps, stages.dedupSignatures),
  dedup: runStage(deps, stages.dedup),
  decontaminate: runStage(deps, stages.decontaminate),
  findPersonalData: runStage(deps, stages.findPersonalData),
  scoreQuality: runStage(deps, stages.scoreQuality),
  labelTopics: runStage(deps, stages.labelTopics),
  trainTopicClassifier: runStage(deps, stages.trainTopicClassifier),
  classifyTopics: runStage(deps, stages.classifyTopics),
  holdOut: runStage(deps, stages.holdOut),
  tokenize: runStage(deps, stages.tokenize),
  scorePpl: runStage(deps, stages.scorePpl),
  countStrata: runStage(deps, stages.countStrata),
  countFunnel: runStage(deps, stages.countFunnel),
  synthesizeQa: runStage(deps, stages.synthesizeQa),
  sampleMixture: runStage(deps, stages.sampleMixture),
  extendVocabulary: runStage(deps, stages.extendVocabulary),
  train: runStage(deps, stages.train),
  dryTrain: runStage(deps, stages.dryTrain),
  evaluatePerplexity: runStage(deps, stages.evaluatePerplexity),
  comparePerplexity: runStage(deps, stages.comparePerplexity),
  evaluateBenchmark: runStage(deps, stages.evaluateBenchmark),
  compareBenchmark: runStage(deps, stages.compareBenchmark),
  exportModel: runStage(deps, stages.exportModel),
})

/** Light activities that no slot of a jobs worker should wait for. */
export const createControlActivities = (deps: Deps): ControlActivities => ({
  resolveInput: beating(resolveInput(deps)),
  resolveSweep: beating(resolveSweep(deps)),
  resolveTransfer: beating(resolveTransfer(deps)),
  sweptBefore: beating(sweptBefore(deps)),
  rememberSweep: beating(rememberSweep(deps)),
  commitVerdict: beating(commitVerdict(deps)),
  readVerdict: beating(readVerdict(deps)),
  trialCost: beating(trialCost(deps)),
  trialStates: beating(trialStates(deps)),
  reapTrials: beating(reapTrials(deps)),
  recordDecision: beating(recordDecision(deps)),
  commitCorpus: beating(commitCorpus(deps)),
  ensureStopped: beating(ensureStopped(deps)),
  pauseJobs: beating(pauseJobs(deps)),
  resumeJobs: beating(resumeJobs(deps)),
  reapJobs: beating(reapJobs(deps)),
  writeReport: beating(writeReport(deps)),
  writeSweepReport: beating(writeSweepReport(deps)),
})

const beatMs = 2_000

/** Heartbeats while the work goes on, so that a task which reached no worker is soon given to another. */
const beating =
  <A extends unknown[], R>(work: (...args: A) => Promise<R>) =>
  async (...args: A): Promise<R> => {
    const ctx = Context.current()
    const timer = setInterval(() => { ctx.heartbeat() }, beatMs)
    try {
      return await work(...args)
    } finally {
      clearInterval(timer)
    }
  }
