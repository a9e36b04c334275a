import { CancellationScope, condition, getExternalWorkflowHandle, isCancellation, workflowInfo } from '@temporalio/workflow'
import { trialPhase, trialSpec, type SweepSpec } from '@cpt/contracts/almr-lr-sweep'
import type { ResolvedRun } from '@cpt/contracts/activities'
import type { CptRunSpec } from '@cpt/contracts/cpt-run'
import type { TrialMeasurement, TrialOutcome, TrialPoint } from '@cpt/contracts/sweep'
import type { Prepared } from '../chapter.ts'
import { cptRound } from '../cpt-round.ts'
import { trialEndedSignal, trialParkedSignal } from '../messages.ts'
import { openRun, type Run } from '../run.ts'
import { lossesOf } from './measure.ts'

/** What a sweep hands to one of its trials. */
export interface TrialInput {
  sweepId: string
  index: number
  point: TrialPoint
  sweep: SweepSpec
  /** The run that all trials share. */
  run: ResolvedRun
  prepared: Prepared
}

/**
 * One point of a sweep's grid: one phase trained from the base and measured. It outlives its sweep, which hears of its end
 * and of its parks by signal.
 */
export async function sweepTrial({ sweepId, index, point, sweep, run: shared, prepared }: TrialInput): Promise<TrialOutcome> {
  const run = openRun('sweepTrial')
  const { workflowId } = workflowInfo()
  const resolved: ResolvedRun = { ...shared, spec: trialSpec(shared.spec, sweep, point) }
  const { spec, base } = resolved
  run.describe({
    model: spec.base.model.slice(0, 100), owner: sweep.owner, backend: spec.placement.train.runner, almr: point.almr, lr: point.peakLr,
    lines: [`Trial ${index} of ${sweep.name} (\`${sweepId}\`): ALMR ${point.almr}, peak LR ${point.peakLr}, seed ${point.seed}, ${sweep.tokensPerTrial} tokens`],
  })
  const end = async (status: TrialOutcome['status'], measurement: TrialMeasurement | null): Promise<TrialOutcome> => {
    const outcome = { index, point, status, workflowId, measurement }
    await told(() => getExternalWorkflowHandle(sweepId).signal(trialEndedSignal, { outcome, spentGpuSeconds: spentBy(run, spec) }))
    return outcome
  }
  const tellOfParks = new CancellationScope()
  const telling = tellOfParks.run(() => parksTold(run, sweepId, index)).catch(() => undefined)
  try {
    const [stage] = spec.plan
    if (stage === undefined) throw new TypeError('a trial has one phase')
    const tokens = Math.floor(stage.tokens / spec.training.globalBatchTokens) * spec.training.globalBatchTokens
    const state = await cptRound(run, resolved, { stage, round: 1, roundTokens: tokens, totalTokens: tokens, corpus: prepared.corpus, synthetic: prepared.synthetic }, { start: { kind: 'model', model: base }, model: base, trainedTokens: 0, drawn: null, topics: {}, measurement: prepared.ofBase })
    const training = run.progress.stages.find((s) => s.key === `${trialPhase}/round-1/train`)
    const losses = lossesOf(state.measurement.strata, spec.targetLanguage)
    const outcome = await end('done', { ...losses, tokens: state.trainedTokens, gpuSeconds: spentBy(run, spec), model: state.model, training: training?.fingerprint ?? '' })
    run.finish('done', `Added language ${losses.added.perToken.toFixed(4)} nats/token, retained ${losses.retained.perToken.toFixed(4)}`)
    return outcome
  } catch (e) {
    await CancellationScope.nonCancellable(() => end(isCancellation(e) ? 'cancelled' : 'failed', null))
    run.finish('failed', 'Ended without a measurement')
    throw e
  } finally {
    tellOfParks.cancel()
    await telling
  }
}

/** Tells the sweep whenever the trial begins or ceases to wait for a person. */
const parksTold = async (run: Run, sweepId: string, index: number): Promise<void> => {
  for (let waits = false; ; waits = !waits) {
    await condition(() => (run.progress.parked.length > 0) !== waits)
    const [parked] = run.progress.parked
    await told(() => getExternalWorkflowHandle(sweepId).signal(trialParkedSignal, { index, waitsFor: parked === undefined ? null : { stage: parked.stage, park: parked.park, type: parked.type, message: parked.message } }))
  }
}

/** A sweep that has ended hears nothing any more, and that is no failure of the trial. */
const told = async (signal: () => Promise<void>): Promise<void> => {
  try {
    await signal()
  } catch (e) {
    if (isCancellation(e)) throw e
  }
}

/** Seconds of the trial's jobs that were run for it, times the devices of each; work that was there already costs nothing. */
const spentBy = ({ progress }: Run, { placement }: CptRunSpec): number => {
  const { nodes, gpusPerNode } = placement.train
  return progress.stages.filter((s) => s.stage === 'train' && s.state === 'done').reduce((sum, s) => sum + s.jobSeconds, 0) * nodes * Math.max(1, gpusPerNode)
}
