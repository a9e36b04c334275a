import { z } from 'zod'
import { trialPlan, type SweepSpec } from './almr-lr-sweep.ts'
import { CptRunInput, InputPath, type CptRunResult, type CptRunSpec } from './cpt-run.ts'
import { partOf } from './part-of.ts'
import { Count, LearningRate, Name, Ratio, Seed, Sha256, Tokens } from './units.ts'

/** Which neighbours of the chosen cell the target is tried at, one on each side. */
export const Neighbours = z.enum(['almr', 'peakLr', 'both'])

const Confirmation = z.strictObject({
  neighbours: Neighbours,
  /** Of every trial on the target; null: as many as a trial of the sweep. */
  tokens: Tokens.min(1).nullable(),
  seeds: z.array(Seed).min(1).max(10),
  parallel: z.int().min(1).max(100),
  budgetGpuSeconds: z.number().positive().nullable(),
  /** What a trial is expected to take, until the first one has ended. */
  expectedGpuSeconds: z.number().positive(),
})
const Phase = z.strictObject({
  /** Of the run on the target; null: four times as many as a trial of the confirmation. */
  tokens: Tokens.min(1).nullable(),
  rounds: z.int().min(1).max(1000),
  reweight: z.boolean(),
})
const Target = z.strictObject({ model: InputPath, license: z.string().max(100) })

/** What a person takes upon himself in the place of evidence. */
export const TransferOverride = z.strictObject({
  almr: Ratio,
  /** At the proxy: `lrFactor` applies to it as to a sweep's. */
  peakLr: LearningRate,
  reason: z.string().trim().min(1).max(2000),
  by: z.string().trim().min(1).max(100),
})
export type TransferOverride = z.infer<typeof TransferOverride>

/** A complete transfer, without the run that it comes to. */
export const TransferSpec = z.strictObject({
  name: Name,
  description: z.string().max(2000),
  owner: z.string().max(100),
  target: Target,
  /** Peak learning rate of the target ÷ that of the proxy. */
  lrFactor: z.number().positive().max(10),
  allowHigherLr: z.boolean(),
  confirmation: Confirmation,
  phase: Phase,
}).superRefine(({ lrFactor, allowHigherLr }, ctx) => {
  if (lrFactor > 1 && !allowHigherLr) ctx.addIssue({ code: 'custom', path: ['lrFactor'], message: 'expected at most 1 (larger models take lower learning rates); allowHigherLr: true lets it be more' })
})
export type TransferSpec = z.infer<typeof TransferSpec>

/**
 * What a person gives to carry what a sweep found on a proxy over to a larger target (arXiv:2409.06624). `verdict` is
 * `verdictRef` of the sweep's result; `run` any part of the run on the target over that of the sweep, whose plan, base,
 * peak learning rate and target language come from the verdict.
 */
export const ModelTransferInput = z.strictObject({
  preset: z.enum(['transfer']).optional(),
  verdict: z.strictObject({ uri: z.string().max(700), sha256: Sha256, bytes: Count.optional() }).optional(),
  override: TransferOverride.optional(),
  name: Name.optional(),
  description: z.string().max(2000).optional(),
  owner: z.string().max(100).optional(),
  target: partOf(Target).optional(),
  lrFactor: z.number().positive().max(10).optional(),
  allowHigherLr: z.boolean().optional(),
  confirmation: partOf(Confirmation).optional(),
  phase: partOf(Phase).optional(),
  run: CptRunInput.omit({ preset: true, plan: true, base: true, targetLanguage: true }).optional(),
})
export type ModelTransferInput = z.input<typeof ModelTransferInput>

const Change = z.object({ added: z.number(), retained: z.number() })

/** One point of the confirmation: changes against the own base, in nats per token (per byte where tokenizers differ). */
export const ConfirmedPoint = z.object({
  role: z.enum(['chosen', 'less-almr', 'more-almr', 'lower-lr', 'higher-lr']),
  almr: Ratio,
  proxyLr: LearningRate,
  targetLr: LearningRate,
  /** What the proxy found; null where its sweep has no measurement there. */
  predicted: Change.nullable(),
  /** What the target found, the mean over seeds; null where no trial of it ended. */
  found: Change.nullable(),
  /** Whether the retained loss of the target stays within the tolerance. */
  feasible: z.boolean().nullable(),
})
export type ConfirmedPoint = z.infer<typeof ConfirmedPoint>

/**
 * What a short run on the target says about the choice of the proxy. `holds`: it is feasible and no neighbour that is
 * feasible is better; `moved`: one is; `refuted`: it is not feasible; `incomplete`: it was not measured.
 */
export const ConfirmationVerdict = z.object({
  format: z.literal('cpt-confirmation/1'),
  outcome: z.enum(['holds', 'moved', 'refuted', 'incomplete']),
  unit: z.enum(['nats/token', 'nats/byte']),
  points: z.array(ConfirmedPoint),
  words: z.array(z.string()),
})
export type ConfirmationVerdict = z.infer<typeof ConfirmationVerdict>

/** Argument of the update `approve`. Where the confirmation does not hold, a reason is asked for. */
export const Approval = z.strictObject({
  approved: z.boolean().default(true),
  reason: z.string().max(2000).default(''),
  by: z.string().min(1).max(100),
})
export type Approval = z.output<typeof Approval>

/** What a transfer ends with. */
export interface ModelTransferResult {
  state: 'trained' | 'refused'
  almr: number
  /** Of the target. */
  peakLr: number
  confirmation: ConfirmationVerdict
  approval: Approval
  /** Of the run on the target. */
  run: { workflowId: string; result: CptRunResult } | null
}

/** Peak learning rate at which the target is trained for one of the proxy's. */
export const targetLrOf = (proxyLr: number, lrFactor: number): number => Math.min(1, proxyLr * lrFactor)

/** Phase of the run on the target; its lines read `transfer/round-1/train`. */
const transferPhase = 'transfer'

/** The run on the target: one phase at the chosen ALMR, at the target's peak learning rate. */
export const transferSpec = (run: CptRunSpec, trials: Pick<SweepSpec, 'tokensPerTrial' | 'order' | 'retained'>, { phase, lrFactor }: Pick<TransferSpec, 'phase' | 'lrFactor'>, chosen: { almr: number; peakLr: number }): CptRunSpec => {
  const peakLr = targetLrOf(chosen.peakLr, lrFactor)
  return {
    ...run,
    plan: trialPlan(run.targetLanguage, { ...trials, tokensPerTrial: phase.tokens ?? 4 * trials.tokensPerTrial }, chosen.almr).map((stage) => ({ ...stage, name: transferPhase, rounds: phase.rounds, reweight: phase.reweight })),
    training: { ...run.training, peakLr, minLr: (run.training.minLr / run.training.peakLr) * peakLr },
  }
}
