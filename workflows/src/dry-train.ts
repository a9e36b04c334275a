import { CancellationScope, proxyActivities, workflowInfo } from '@temporalio/workflow'
import type { ControlActivities } from '@cpt/contracts/activities'
import { plannedTokens } from '@cpt/contracts/cpt-run'
import { DryTrainInput, type DryTrainOutcome, type DryTrainResult } from '@cpt/contracts/dry-train'
import { trainingTime } from '@cpt/contracts/training-time'
import { light } from './activity-options.ts'
import { parseInput } from './parse.ts'
import { openRun } from './run.ts'
import { withVocabulary } from './with-vocabulary.ts'

/**
 * The training of a run for some steps on synthetic tokens, with the run's own placement: one save, one load and one
 * evaluation, so that memory, speed and time are known before the budget is spent. Takes {run, steps}.
 */
export async function dryTrain(input?: unknown): Promise<DryTrainOutcome> {
  const { run: given = {}, steps, evaluationTokens = null } = parseInput(DryTrainInput, input ?? {})
  const run = openRun('dryTrain')
  const found = await proxyActivities<ControlActivities>({ ...light, activityId: 'resolve-input', summary: 'presets, defaults, files' }).resolveInput(given)
  const { spec, base, tokenizer } = found
  const { training, placement } = spec
  run.describe({ model: spec.base.model.slice(0, 100), owner: spec.owner, backend: placement.train.runner, lines: [`${steps} steps of ${training.globalBatchTokens} synthetic tokens on the placement of the run's training`] })
  try {
    const { extended = base } = await withVocabulary(run, found)
    const figures = await run.stage('dry-train', 'dryTrain', {
      model: extended, tokenizer, steps, sequenceTokens: training.sequenceTokens, globalBatchTokens: training.globalBatchTokens, optimizer: training.optimizer,
      dtype: training.dtype, seed: spec.seed, windowTokens: spec.evaluation.windowTokens, asked: workflowInfo().firstExecutionRunId,
    }, { placement: placement.train, note: figuresNote })
    const tokens = plannedTokens(spec)
    const outcome: DryTrainOutcome = { figures, plannedTokens: tokens, plannedSteps: tokens / training.globalBatchTokens, time: trainingTime(spec, figures, evaluationTokens) }
    run.finish('done', pageFigures(outcome))
    return outcome
  } catch (e) {
    await CancellationScope.nonCancellable(() => Promise.resolve(run.finish('failed', 'Ended without figures')))
    throw e
  }
}

const hours = (seconds: number): string => `${(seconds / 3600).toFixed(3)} hours`

const gb = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`

const figuresNote = (r: DryTrainResult): string =>
  `${Math.round(r.tokensPerSecond)} tokens/s, ${gb(Math.max(...r.memoryPeakBytes))} at most, a save stalls ${r.saveStallSeconds.toFixed(2)} s`

const pageFigures = ({ figures: r, plannedSteps, plannedTokens, time: { phases, saves, seconds, evaluations, evaluationTokens } }: DryTrainOutcome): string => [
  '| figure | value |', '|---|---|',
  `| tokens/s | ${Math.round(r.tokensPerSecond)}${r.mfu === null ? '' : `, MFU ${(100 * r.mfu).toFixed(1)} %`} |`,
  `| memory peak, largest of ${r.processes} | ${gb(Math.max(...r.memoryPeakBytes))} |`,
  `| save | stalls ${r.saveStallSeconds.toFixed(3)} s, takes ${r.saveSeconds.toFixed(2)} s, ${gb(r.checkpointBytes)} |`,
  `| load | ${r.loadSeconds.toFixed(2)} s |`,
  `| evaluation | ${r.evaluationTokens} tokens in ${r.evaluationSeconds.toFixed(2)} s |`,
  `| the run's ${plannedTokens} tokens: ${plannedSteps} steps | ${hours(seconds.steps)} |`,
  `| ${saves.whileTraining} saves while it trains, ${saves.waitedFor} waited for | ${hours(seconds.saves)} |`,
  `| ${phases} starts: model, first step, optimizer | ${hours(seconds.starts)} |`,
  seconds.evaluations === null ? '| evaluations | not counted: how many tokens the sets have is not known |' : `| ${evaluations} evaluations of ${evaluationTokens ?? 0} tokens | ${hours(seconds.evaluations)} |`,
  `| in all${seconds.evaluations === null ? ', without evaluations' : ''} | ${hours(seconds.inAll)} |`,
].join('\n')
