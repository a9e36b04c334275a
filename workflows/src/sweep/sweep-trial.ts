import { CancellationScope, getExternalWorkflowHandle, isCancellation, proxyActivities, workflowInfo } from '@temporalio/workflow'
import type { ControlActivities, ResolvedRun } from '@cpt/contracts/activities'
import { trialPhase, trialSpec, type SweepSpec } from '@cpt/contracts/almr-lr-sweep'
import type { TrialMeasurement, TrialOutcome, TrialPoint } from '@cpt/contracts/sweep'
import { light } from '../activity-options.ts'
import type { Prepared } from '../chapter.ts'
import { cptRound } from '../cpt-round.ts'
import { trialEndedSignal, trialParkedSignal } from '../messages.ts'
import type { FixedFields } from '../patch.ts'
import { openRun, type Run } from '../run.ts'
import { tellOfParks, told } from '../tell.ts'
import { lossesOf } from './measure.ts'

/** What a sweep hands to one of its trials. */
export interface TrialInput {
  sweepId: string
  /** First run of the sweep, which tells sweeps of one id apart. */
  chain: string
  index: number
  point: TrialPoint
  sweep: SweepSpec
  /** The run that all trials share. */
  run: ResolvedRun
  prepared: Prepared
}

/** What a trial varies, and what makes trials comparable: no patch of an operator touches it. */
const fixed: FixedFields = {
  sampleMixture: ['pools', 'strata', 'tokenBudget', 'order', 'band', 'seed'],
  train: ['start', 'plan', 'tokenBudget', 'globalBatchTokens', 'schedule.peakLr', 'schedule.minLr', 'schedule.totalTokens', 'seed', 'validation'],
}

/**
 * One point of a sweep's grid: one phase trained from the base and measured. It outlives its sweep, which hears of its end
 * and of its parks by signal.
 */
export async function sweepTrial({ sweepId, chain, index, point, sweep, run: shared, prepared }: TrialInput): Promise<TrialOutcome> {
  const run = openRun('sweepTrial', undefined, fixed)
  const { workflowId } = workflowInfo()
  const resolved: ResolvedRun = { ...shared, spec: trialSpec(shared.spec, sweep, point) }
  const { spec, base } = resolved
  const cost = costOf(run, resolved)
  run.describe({
    model: spec.base.model.slice(0, 100), owner: sweep.owner, backend: spec.placement.train.runner, almr: point.almr, lr: point.peakLr,
    lines: [`Trial ${index} of ${sweep.name} (\`${sweepId.replaceAll('`', ' ')}\`): ALMR ${point.almr}, peak LR ${point.peakLr}, seed ${point.seed}, ${sweep.tokensPerTrial} tokens`],
  })
  const end = async (status: TrialOutcome['status'], measurement: TrialMeasurement | null, spent: number): Promise<TrialOutcome> => {
    const outcome = { index, point, status, workflowId, measurement }
    await told(() => getExternalWorkflowHandle(sweepId).signal(trialEndedSignal, { chain, outcome, spentGpuSeconds: spent }))
    return outcome
  }
  const beside = new CancellationScope()
  const telling = beside.run(() => tellOfParks(run, async ([waitsFor = null]) => {
    const { spent } = await cost()
    await told(() => getExternalWorkflowHandle(sweepId).signal(trialParkedSignal, { chain, index, waitsFor, spentGpuSeconds: spent }))
  })).catch(() => undefined)
  try {
    const [stage] = spec.plan
    if (stage === undefined) throw new TypeError('a trial has one phase')
    const tokens = Math.floor(stage.tokens / spec.training.globalBatchTokens) * spec.training.globalBatchTokens
    const state = await cptRound(run, resolved, { stage, round: 1, roundTokens: tokens, totalTokens: tokens, corpus: prepared.corpus, synthetic: prepared.synthetic, compared: false }, { start: { kind: 'model', model: base }, model: base, trainedTokens: 0, drawn: null, topics: {}, measurement: prepared.ofBase })
    const losses = lossesOf(state.measurement.strata, spec.targetLanguage)
    const { spent, work, training } = await cost()
    const outcome = await end('done', { ...losses, tokens: state.trainedTokens, gpuSeconds: work, model: state.model, training }, spent)
    run.finish('done', `Added language ${losses.added.perToken.toFixed(4)} nats/token, retained ${losses.retained.perToken.toFixed(4)}`)
    return outcome
  } catch (e) {
    await CancellationScope.nonCancellable(async () => end(isCancellation(e) ? 'cancelled' : 'failed', null, (await cost()).spent))
    run.finish('failed', 'Ended without a measurement')
    throw e
  } finally {
    beside.cancel()
    await telling
  }
}

type Cost = () => Promise<{ spent: number; work: number; training: string }>

/** GPU-seconds so far: of all jobs that the trial had started for its training, and of the training itself, whoever did it. */
const costOf = (run: Run, { spec: { placement } }: ResolvedRun): Cost => {
  const { workflowId, firstExecutionRunId } = workflowInfo()
  const { trialCost } = proxyActivities<ControlActivities>({ ...light, summary: 'GPU-seconds so far' })
  const devices = placement.train.nodes * Math.max(1, placement.train.gpusPerNode)
  const key = `${trialPhase}/round-1/train`
  return async () => {
    const training = run.progress.stages.find((s) => s.key === key)?.fingerprint ?? ''
    const { spentSeconds, workSeconds } = await trialCost({ run: { workflowId, firstRunId: firstExecutionRunId }, key, fingerprint: training === '' ? null : training })
    return { spent: spentSeconds * devices, work: workSeconds * devices, training }
  }
}
