import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import type { Parked } from './cpt-run.ts'
import { Count, LearningRate, Ratio, Seed, Sha256, Tokens } from './units.ts'

/**
 * What one trial of a sweep varies (arXiv:2409.06624): ALMR, the additional language mixture ratio, is the share of the
 * added language in the mixture; `peakLr` the peak learning rate; the seed draws data and order.
 */
export const TrialPoint = z.strictObject({ almr: Ratio, peakLr: LearningRate, seed: Seed })
export type TrialPoint = z.infer<typeof TrialPoint>

/** Token-weighted loss of one language's validation sets, in nats per token and per UTF-8 byte. */
export const LanguageLoss = z.object({ perToken: z.number(), perByte: z.number() })
export type LanguageLoss = z.infer<typeof LanguageLoss>

/**
 * What a trial that was trained to its end is judged by. `gpuSeconds`: what its training took, whoever it was that ran it;
 * `training`: fingerprint of that work, by which its curve and checkpoints are found.
 */
export const TrialMeasurement = z.object({ added: LanguageLoss, retained: LanguageLoss, tokens: Tokens, gpuSeconds: z.number().nonnegative(), model: ArtifactRef, training: Sha256 })
export type TrialMeasurement = z.infer<typeof TrialMeasurement>

/** Only a trial that is `done` has a measurement: one that `failed` or was `cancelled`, waits for a person (`parked`) or never began (`unstarted`) has none. */
export const TrialOutcome = z.object({
  index: Count,
  point: TrialPoint,
  status: z.enum(['done', 'parked', 'failed', 'cancelled', 'unstarted']),
  /** Workflow of the trial: its page. */
  workflowId: z.string(),
  measurement: TrialMeasurement.nullable(),
})
export type TrialOutcome = z.infer<typeof TrialOutcome>

/** How a sweep's winner is chosen: retained loss may rise by so many nats per token (0.05: arXiv:2407.17467). */
export const ChoiceSettings = z.strictObject({ retentionToleranceNats: z.number().min(0).default(0.05), z: z.number().min(0).max(10).default(1.64) })
export type ChoiceSettings = z.infer<typeof ChoiceSettings>

/** All seeds of one ALMR and learning rate; losses are means over the seeds that were measured, null where none was. */
export const SweepCell = z.object({
  almr: Ratio,
  peakLr: LearningRate,
  seeds: Count,
  measured: Count,
  added: LanguageLoss.nullable(),
  retained: LanguageLoss.nullable(),
  state: z.enum(['feasible', 'infeasible', 'incomplete', 'control']),
})
export type SweepCell = z.infer<typeof SweepCell>

/** What a sweep found, kept as an artifact: transfer cites it by digest. `chosen` is null where nothing is feasible. */
export const SweepVerdict = z.object({
  format: z.literal('cpt-sweep-verdict/1'),
  chosen: z.object({ almr: Ratio, peakLr: LearningRate, added: LanguageLoss, retained: LanguageLoss }).nullable(),
  /** Cells that cannot be told from the chosen one. */
  ties: z.array(z.object({ almr: Ratio, peakLr: LearningRate })),
  /** Sides of the grid on which the chosen cell lies. */
  edges: z.array(z.enum(['smallest-almr', 'largest-almr', 'smallest-lr', 'largest-lr'])),
  cells: z.array(SweepCell),
  /** Pooled over the cells, nats per token; null where no cell has two seeds. */
  standardDeviation: z.object({ added: z.number().nonnegative().nullable(), retained: z.number().nonnegative().nullable() }),
  base: z.object({ added: LanguageLoss, retained: LanguageLoss }),
  settings: ChoiceSettings,
  missing: z.array(z.object({ index: Count, point: TrialPoint, status: TrialOutcome.shape.status })),
  /** The verdict in sentences, the most important first. */
  words: z.array(z.string()),
})
export type SweepVerdict = z.infer<typeof SweepVerdict>

/**
 * The budget of a sweep in GPU-seconds (on a CPU: seconds of a job). A trial that begins reserves what one is expected to
 * take; what its jobs really took is debited as it becomes known; at its end the rest of its reservation is given back.
 */
export interface Ledger {
  /** null: no limit. */
  budget: number | null
  /** By trial: what is still held for it. */
  reserved: Record<string, number>
  /** By trial: what its jobs took. */
  spent: Record<string, number>
  /** Trials that are over, whose cost says what the next one may take. */
  settled: number[]
}

/**
 * What a trial tells those that began it: that it is over and what it cost them, or that it waits for a person. `chain` is
 * the first run of the sweep that began the trial: another sweep of the same id is told nothing by it.
 */
export interface TrialEnded {
  chain: string
  outcome: TrialOutcome
  /** All its jobs together, failed and stopped ones too. */
  spentGpuSeconds: number
}
export interface TrialParked {
  chain: string
  index: number
  /** null: a person has decided, it goes on. */
  waitsFor: Waiting | null
  spentGpuSeconds: number
}
/** What a run tells the transfer that began it: for what it waits for a person; nothing: it goes on. */
export interface RunParked {
  workflowId: string
  waitsFor: Waiting[]
}
/** What a parked trial, or run, waits for. */
export type Waiting = Pick<Parked, 'stage' | 'park' | 'type' | 'message' | 'cause' | 'suggest' | 'actions'>
