import { z } from 'zod'
import type { ArtifactRef } from './artifact.ts'
import { CptRunInput, type CptRunSpec } from './cpt-run.ts'
import { LanguageRatios } from './mixture.ts'
import { partOf } from './part-of.ts'
import { ChoiceSettings, type SweepVerdict, type TrialOutcome, type TrialPoint } from './sweep.ts'
import { LearningRate, Name, Ratio, Seed, Tokens } from './units.ts'

/** Its trials stand in one result and on one page. */
export const mostTrials = 200

const GridAxes = z.strictObject({
  almr: z.array(Ratio).min(1).max(50),
  peakLrs: z.array(LearningRate).min(1).max(50),
  seeds: z.array(Seed).min(1).max(20),
})
/** ALMR values × peak learning rates × seeds; ALMR 0, the control of every learning rate, is added by itself. */
export const SweepGrid = GridAxes.superRefine(({ almr, peakLrs, seeds }, ctx) => {
  const trials = new Set([0, ...almr]).size * new Set(peakLrs).size * new Set(seeds).size
  if (trials > mostTrials) ctx.addIssue({ code: 'custom', message: `expected at most ${mostTrials} trials, ALMR 0 among them; these are ${trials}` })
})

/** A complete sweep, without the run that its trials share. */
export const SweepSpec = z.strictObject({
  name: Name,
  description: z.string().max(2000),
  owner: z.string().max(100),
  grid: SweepGrid,
  /** Of every trial, whatever its mixture. */
  tokensPerTrial: Tokens.min(1),
  order: z.enum(['perplexity', 'random']),
  /** How the retained languages share what ALMR leaves them. */
  retained: LanguageRatios,
  /** Trials that work at the same time; one that waits for a person does not count. */
  parallel: z.int().min(1).max(1000),
  /** null: no limit. On a CPU a GPU-second is a second of a job. */
  budgetGpuSeconds: z.number().positive().nullable(),
  /** What a trial is expected to take, until the first one has ended. */
  expectedGpuSeconds: z.number().positive(),
  choice: ChoiceSettings,
  /** With only parked trials left: wait for a person, or end with a verdict on the others and leave them open. */
  parkedTrials: z.enum(['wait', 'leave']),
  /** Where the very same was swept before: end `unchanged`, or sweep again (nothing is trained twice in either case). */
  whenUnchanged: z.enum(['end', 'sweep']),
})
export type SweepSpec = z.infer<typeof SweepSpec>

/**
 * What a person gives to start a sweep: any part of it over the preset, and in `run` any part of the run that all trials
 * share. The run's plan, peak learning rate and seed are the sweep's to vary.
 */
export const AlmrLrSweepInput = z.strictObject({
  preset: z.enum(['sweep']).optional(),
  run: CptRunInput.omit({ preset: true, plan: true }).optional(),
  name: Name.optional(),
  description: z.string().max(2000).optional(),
  owner: z.string().max(100).optional(),
  grid: partOf(GridAxes).optional(),
  tokensPerTrial: Tokens.min(1).optional(),
  order: SweepSpec.shape.order.optional(),
  retained: LanguageRatios.optional(),
  parallel: SweepSpec.shape.parallel.optional(),
  budgetGpuSeconds: SweepSpec.shape.budgetGpuSeconds.optional(),
  expectedGpuSeconds: SweepSpec.shape.expectedGpuSeconds.optional(),
  choice: partOf(ChoiceSettings).optional(),
  parkedTrials: SweepSpec.shape.parkedTrials.optional(),
  whenUnchanged: SweepSpec.shape.whenUnchanged.optional(),
})
export type AlmrLrSweepInput = z.input<typeof AlmrLrSweepInput>

/** Name of a trial's only phase; its lines read `trial/round-1/train`. */
export const trialPhase = 'trial'

type Trained = Pick<SweepSpec, 'tokensPerTrial' | 'order' | 'retained'>

/** The plan of a trial: ALMR of its tokens in the added language, the rest shared by the retained ones. */
export const trialPlan = (addedLanguage: string, { tokensPerTrial, order, retained }: Trained, almr: number): CptRunSpec['plan'] => {
  const shares: [string, number][] = [[addedLanguage, almr], ...Object.entries(retained).map(([language, share]): [string, number] => [language, share * (1 - almr)])]
  return [{
    name: trialPhase, rounds: 1, tokens: tokensPerTrial, order, curriculumLanguages: null, reweight: false,
    mixture: { languages: Object.fromEntries(shares.filter(([, share]) => share > 0)), kinds: {}, topics: 'natural' },
  }]
}

/**
 * The run that one trial is: its plan, trained from the base with the point's peak learning rate, to which the lowest one
 * keeps its proportion.
 */
export const trialSpec = (run: CptRunSpec, sweep: Trained, { almr, peakLr, seed }: TrialPoint): CptRunSpec => ({
  ...run,
  seed,
  plan: trialPlan(run.targetLanguage, sweep, almr),
  training: { ...run.training, peakLr, minLr: (run.training.minLr / run.training.peakLr) * peakLr },
})

/**
 * What a sweep ends with. `needs-attention`: trials have no result. `unchanged`: the very same was swept before to a
 * verdict that lacks nothing but what still waits for a person; nothing was trained, and that verdict is told again.
 */
export interface AlmrLrSweepResult {
  state: 'complete' | 'needs-attention' | 'unchanged'
  verdict: SweepVerdict
  /** The verdict as an artifact: what `modelTransfer` cites. */
  verdictRef: ArtifactRef
  report: string | null
  trials: Pick<TrialOutcome, 'index' | 'point' | 'status' | 'workflowId'>[]
}
