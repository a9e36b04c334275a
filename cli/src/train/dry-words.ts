import type { DryTrainOutcome } from '@cpt/contracts/dry-train'
import { size, span, tflops } from '../plan/plan-words.ts'
import { plainText } from '../plain-text.ts'
import { table } from '../run/table.ts'
import { duration, quantity } from '../run/words.ts'

/** What `cpt train --dry` says to a person. */
export const dryWords = ({ figures: f, plannedSteps, plannedTokens, time }: DryTrainOutcome): string => {
  const most = Math.max(...f.memoryPeakBytes)
  const evaluated = f.evaluationTokens / f.evaluationSeconds
  const rows = [
    ['device', `${f.processes} × ${plainText(f.device)}`],
    ['parameters', quantity(f.parameters)],
    ['micro-batch', `${f.microBatchSequences} ${f.microBatchSequences === 1 ? 'sequence' : 'sequences'}`],
    [f.processes === 1 ? 'memory peak' : 'memory peak of a process, at most', size(most)],
    ['speed', `${quantity(f.tokensPerSecond)} tokens/s, ${duration(f.secondsPerStep)} a step (the first ${duration(f.firstStepSeconds)})`],
    ['MFU', f.mfu === null ? 'no peak of this device is known (placement.train.peakTflops states one)' : `${(100 * f.mfu).toFixed(1)} % of ${tflops(f.utilisation.peakFlops ?? 0)} TFLOP/s`],
    ['a save', `training stands still for ${f.saveStallSeconds.toFixed(3)} s (${(f.saveStallSeconds / f.secondsPerStep).toFixed(1)} steps); written after ${f.saveSeconds.toFixed(2)} s, ${size(f.checkpointBytes)}`],
    ['a load', `${f.loadSeconds.toFixed(2)} s, and ${f.modelSeconds.toFixed(2)} s for the model before it`],
    ['evaluation', `${quantity(evaluated)} tokens/s`],
  ] as const
  return [
    table([`${f.steps} steps of ${f.tokens / f.steps} synthetic tokens`, ''], rows.map((row) => [...row])).split('\n').map((line) => line.trimEnd()).join('\n'),
    '',
    timeTable(plannedSteps, time),
    '',
    `  the run's ${quantity(plannedTokens)} tokens (${plannedSteps} steps) take ${span(time.seconds.inAll / 3600)} at this speed, ${time.seconds.evaluations === null ? 'without evaluations; the data stages apart' : 'the data stages apart'}`,
    ...(time.seconds.evaluations === null ? ['  (--evaluation-tokens <n> counts them: the tokens of the validation sets, the report of an earlier run tells them)'] : []),
  ].join('\n')
}

/** The parts of the time that a run's training takes. */
const timeTable = (steps: number, { phases, saves, evaluations, evaluationTokens, seconds }: DryTrainOutcome['time']): string =>
  table(['time of the training', 'how many', 'seconds'], [
    ['steps', String(steps), seconds.steps.toFixed(1)],
    ['saves', `${saves.whileTraining} beside it, ${saves.waitedFor} waited for`, seconds.saves.toFixed(1)],
    ['starts: model, first step, optimizer', String(phases), seconds.starts.toFixed(1)],
    ['evaluations', evaluationTokens === null ? `${evaluations} of unknown size` : `${evaluations} of ${quantity(evaluationTokens)} tokens`, seconds.evaluations?.toFixed(1) ?? 'not counted'],
    ['in all', '', seconds.inAll.toFixed(1)],
  ])
