import { trainedTokensOf, type CptRunSpec } from './cpt-run.ts'
import type { DryTrainResult, TrainingTime } from './dry-train.ts'
import { CheckpointSettings } from './job.ts'

type Measured = Pick<DryTrainResult, 'secondsPerStep' | 'firstStepSeconds' | 'modelSeconds' | 'loadSeconds' | 'saveStallSeconds' | 'saveSeconds' | 'evaluationSeconds' | 'evaluationTokens'>

/**
 * How long all phases of a run train, from what a dry training measured: steps at the median step; saves at the interval that
 * the trainer keeps (ml/cpt_ml/train_state.py, SaveRhythm), each for as long as training stands still, and those that are waited
 * for, at a phase's end and where there is a guard before its first step, for as long as they take; the starts: model, first
 * step, and after the first phase the optimizer; the evaluations at each end and after each `validateEverySteps`.
 * `evaluationTokens`: of the validation sets, null where that is not known.
 */
export const trainingTime = ({ plan, training, placement: { train } }: Pick<CptRunSpec, 'plan' | 'training' | 'placement'>, measured: Measured, evaluationTokens: number | null): TrainingTime => {
  const { secondsPerStep, saveStallSeconds, saveSeconds } = measured
  const { meanSecondsBetweenFailures } = train.checkpoints ?? CheckpointSettings.parse({})
  const youngSteps = Math.floor(Math.max(Math.sqrt(2 * saveStallSeconds * meanSecondsBetweenFailures), saveSeconds) / secondsPerStep) + 1
  const phases = plan.flatMap((stage) => Array.from({ length: stage.rounds }, () => {
    const steps = trainedTokensOf(stage, training.globalBatchTokens) / stage.rounds / training.globalBatchTokens
    const every = train.checkpointEverySteps ?? Math.min(Math.ceil(steps / 20), youngSteps)
    return { steps, every, between: Math.floor((steps - 1) / every) }
  }))
  const sum = (of: (phase: (typeof phases)[number]) => number): number => phases.reduce((total, phase) => total + of(phase), 0)
  const waitedFor = phases.length * (training.guard == null ? 1 : 2)
  const evaluations = evaluationsOf({ plan, training })
  const seconds = {
    steps: sum((p) => p.steps) * secondsPerStep,
    // a save that is still being written when the next one is due is waited for
    saves: sum((p) => p.between * (saveStallSeconds + Math.max(0, saveSeconds - p.every * secondsPerStep))) + waitedFor * saveSeconds,
    starts: phases.length * (measured.modelSeconds + Math.max(0, measured.firstStepSeconds - secondsPerStep)) + (phases.length - 1) * measured.loadSeconds,
    evaluations: evaluationTokens === null ? null : (evaluations * evaluationTokens * measured.evaluationSeconds) / measured.evaluationTokens,
  }
  return {
    phases: phases.length,
    saves: { whileTraining: sum((p) => p.between), waitedFor, everySteps: Math.max(...phases.map((p) => p.every)) },
    evaluations,
    evaluationTokens,
    seconds: { ...seconds, inAll: seconds.steps + seconds.saves + seconds.starts + (seconds.evaluations ?? 0) },
  }
}

/** How often a run's training scores its validation sets: at each phase's end, and after each `validateEverySteps` before. */
export const evaluationsOf = ({ plan, training: { globalBatchTokens, validateEverySteps } }: Pick<CptRunSpec, 'plan' | 'training'>): number =>
  plan.reduce((sum, stage) => {
    const steps = trainedTokensOf(stage, globalBatchTokens) / stage.rounds / globalBatchTokens
    // the last step is measured by the end of the phase
    return sum + stage.rounds * (1 + (validateEverySteps === undefined ? 0 : Math.floor((steps - 1) / validateEverySteps)))
  }, 0)
