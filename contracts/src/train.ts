import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { PerplexityMeasurement, ValidationSettings } from './evaluate-perplexity.ts'
import { stage } from './stage.ts'
import { Count, LearningRate, Ratio, Seed, Steps, Tokens } from './units.ts'

/** What carries a phase out. Two engines round differently, so it is identity; absent: fsdp2, so far the only one. */
export const Engine = z.enum(['fsdp2'])

export const DecayShape = z.enum(['one-minus-sqrt', 'linear', 'cosine'])

/**
 * A part that begins at the rate at which the one before ended: it may rise first (`rewarmTokens` to `rewarmLr`), then holds,
 * or falls to `endLr` until its last token. Annealing is a part that falls; re-warming and re-decaying (arXiv:2403.08763) one
 * that rises first.
 */
export const SchedulePart = z.strictObject({
  shape: z.enum(['hold', ...DecayShape.options]),
  endLr: z.number().nonnegative().max(1).optional(),
  rewarmTokens: Tokens.min(1).optional(),
  rewarmLr: LearningRate.optional(),
})
export type SchedulePart = z.infer<typeof SchedulePart>

/**
 * Learning rate by tokens, continuous over rounds: this phase covers [startTokens, startTokens + budget) of totalTokens, or
 * of the `parts` that follow them. Warm-up is linear from `initialLr` (absent: 0); `decayShape` is that of
 * warmup-stable-decay (absent: one-minus-sqrt).
 */
export const Schedule = z.strictObject({
  shape: z.enum(['constant', 'cosine', 'warmup-stable-decay']),
  peakLr: LearningRate,
  minLr: z.number().nonnegative().max(1),
  warmupTokens: Tokens,
  decayTokens: Tokens,
  totalTokens: Tokens.min(1),
  startTokens: Tokens,
  initialLr: z.number().nonnegative().max(1).optional(),
  decayShape: DecayShape.optional(),
  parts: z.array(SchedulePart.extend({ tokens: Tokens.min(1) })).max(20).optional(),
})
export type Schedule = z.infer<typeof Schedule>

/** AdamW; `clipNorm` is the limit of the global gradient norm. */
export const OptimizerSettings = z.strictObject({
  beta1: Ratio.default(0.9),
  beta2: Ratio.default(0.95),
  epsilon: z.number().positive().default(1e-8),
  weightDecay: z.number().nonnegative().default(0.1),
  clipNorm: z.number().positive().default(1),
})

/**
 * What is done about steps that are unfit to be taken. A loss is a spike when it stands both `spikeZ` robust standard
 * deviations (1.4826 × median absolute deviation) and `minRise` nats per token above the median of the `windowSteps`
 * trained steps before it: the phase goes back to where the `skipSteps` steps that end with it begin, and skips them. A
 * batch whose loss or gradient is no number costs itself. More than `maxAmendments` of these park the phase.
 */
export const Guard = z.strictObject({
  windowSteps: z.int().min(2).max(10_000).default(32),
  spikeZ: z.number().positive().default(8),
  minRise: z.number().nonnegative().default(0.5),
  skipSteps: z.int().min(1).max(10_000).default(16),
  maxAmendments: z.int().min(0).max(1000).default(3),
})

/** Tokens [fromToken, toToken) of the plan were skipped because of what step `step` showed: trained + skipped = plan. */
export const Amendment = z.object({ fromToken: Tokens, toToken: Tokens, reason: z.enum(['not-finite', 'weights-not-finite', 'spike']), step: Steps })
export type Amendment = z.infer<typeof Amendment>

/** Where a phase starts: a Hugging Face folder (fresh optimizer), or the `checkpoint/` folder of an earlier phase. */
export const TrainStart = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('model'), model: ArtifactRef }),
  z.strictObject({ kind: z.literal('checkpoint'), checkpoint: ArtifactRef, optimizer: z.enum(['keep', 'reset']) }),
])

/**
 * One phase of training over one immutable plan. Loss = sum over targets ÷ number of targets of the global batch. The
 * checkpoint interval and thread count are placement: same meaning, on record in the checkpoints' numerics fingerprint.
 */
export const TrainRequest = z.strictObject({
  engine: Engine.optional(),
  start: TrainStart,
  plan: ArtifactRef,
  tokenizer: ArtifactRef,
  tokenBudget: Tokens.min(1),
  sequenceTokens: z.int().min(8),
  globalBatchTokens: z.int().min(8),
  schedule: Schedule,
  optimizer: OptimizerSettings.default(OptimizerSettings.parse({})),
  dtype: z.enum(['float32', 'bfloat16']).default('float32'),
  seed: Seed.default(42),
  validation: ValidationSettings,
  /** Attention and positions stay within each document, whose first token is then no target; absent: over the whole window. */
  documentMasking: z.boolean().optional(),
  /** Absent: a loss or gradient that is no number parks the phase, and spikes are trained on. */
  guard: Guard.optional(),
  /** After each so many steps the frozen sets are measured and a checkpoint is saved; the best one is kept. Absent: at the end alone. */
  validateEverySteps: z.int().min(1).optional(),
})

/** The step after which the frozen sets had the lowest loss, in nats per token over all of them, and its model. */
export const BestStep = z.object({ step: Steps, tokens: Tokens, nllPerToken: z.number(), model: ArtifactRef })

/**
 * `curve`: JSON Lines {step, tokens, loss, lr, gradNorm}, or {step, tokens, skipped} where an amendment skipped the step;
 * `restarts`: where a job had to take up an earlier one's work; `tokens` and `steps` count what was skipped, too.
 */
export const TrainResult = z.object({
  model: ArtifactRef,
  checkpoint: ArtifactRef,
  curve: ArtifactRef,
  tokens: Tokens,
  steps: Steps,
  finalLoss: z.number(),
  weightsSha256: z.string(),
  restarts: z.array(z.object({ attempt: Count, step: Steps, tokens: Tokens })),
  tokensPerSecond: z.number(),
  measurement: PerplexityMeasurement,
  /** Present where the request has a guard. */
  amendments: z.array(Amendment).optional(),
  /** Present where the request has validateEverySteps: JSON Lines {step, tokens, nllPerToken, strata}, the last step's among them. */
  validations: ArtifactRef.optional(),
  /** Likewise; where the last step is the best, `model` is that of the phase. */
  best: BestStep.optional(),
})
export const train = stage({ name: 'train', version: 1, shape: { kind: 'whole' }, request: TrainRequest, result: TrainResult })
