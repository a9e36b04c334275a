import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { CptRunInput } from './cpt-run.ts'
import { stage } from './stage.ts'
import { OptimizerSettings } from './train.ts'
import { Count, Seconds, Seed, Steps, Tokens } from './units.ts'

/**
 * What `dryTrain` takes: a run, of which it trains `steps` steps on synthetic tokens with the run's placement.
 * `evaluationTokens`: of the run's validation sets, where an earlier run tells them; absent: evaluations are left out of the time.
 */
export const DryTrainInput = z.strictObject({ run: CptRunInput.optional(), steps: z.int().min(3).max(10_000).default(20), evaluationTokens: Tokens.min(1).optional() })
export type DryTrainInput = z.input<typeof DryTrainInput>

/**
 * The trainer on synthetic tokens, for its figures alone. They depend on machine and moment, so `asked`, who asked, is part
 * of the identity: nobody gets another's figures.
 */
export const DryTrainRequest = z.strictObject({
  model: ArtifactRef,
  tokenizer: ArtifactRef,
  steps: z.int().min(3).max(10_000),
  sequenceTokens: z.int().min(8),
  globalBatchTokens: z.int().min(8),
  optimizer: OptimizerSettings,
  dtype: z.enum(['float32', 'bfloat16']),
  seed: Seed,
  windowTokens: z.int().min(8),
  asked: z.string().min(1).max(200),
})

/** `memoryPeakBytes` has a figure a process; `secondsPerStep` is the median after two steps of warm-up. */
export const DryTrainResult = z.object({
  device: z.string(),
  processes: z.int().min(1),
  parameters: Count,
  microBatchSequences: z.int().min(1),
  steps: Steps,
  tokens: Tokens,
  lastLoss: z.number(),
  memoryPeakBytes: z.array(Count).min(1),
  tokensPerSecond: z.number().positive(),
  secondsPerStep: Seconds,
  firstStepSeconds: Seconds,
  mfu: z.number().nullable(),
  utilisation: z.object({ formula: z.string(), flopsPerToken: z.number(), peakFlops: z.number().nullable(), devices: z.number() }),
  modelSeconds: Seconds,
  /** How long training stood still for the save, and how long the save took beside it. */
  saveStallSeconds: Seconds,
  saveSeconds: Seconds,
  checkpointBytes: Count,
  loadSeconds: Seconds,
  evaluationSeconds: Seconds,
  evaluationTokens: Tokens,
})
export type DryTrainResult = z.infer<typeof DryTrainResult>
export const dryTrain = stage({ name: 'dry-train', version: 1, shape: { kind: 'whole' }, request: DryTrainRequest, result: DryTrainResult })

/** How long all phases of a run train (training-time.ts); `seconds.evaluations` is null, and no part of `inAll`, where the tokens of the sets are not known. */
export const TrainingTime = z.object({
  phases: Count,
  /** `everySteps`: the largest of the phases' intervals. */
  saves: z.object({ whileTraining: Count, waitedFor: Count, everySteps: Steps }),
  evaluations: Count,
  evaluationTokens: Tokens.nullable(),
  seconds: z.object({ steps: Seconds, saves: Seconds, starts: Seconds, evaluations: Seconds.nullable(), inAll: Seconds }),
})
export type TrainingTime = z.infer<typeof TrainingTime>

/** What the workflow ends with: the figures, and how long the run's training takes at that speed. */
export const DryTrainOutcome = z.object({ figures: DryTrainResult, plannedTokens: Tokens, plannedSteps: Steps, time: TrainingTime })
export type DryTrainOutcome = z.infer<typeof DryTrainOutcome>
