import { z } from 'zod'
import { Count, Name, Seconds, Sha256, Tokens } from './units.ts'

export const RunnerName = z.enum(['local', 'slurm'])
export type RunnerName = z.infer<typeof RunnerName>

/**
 * Which checkpoints of a phase are kept while it runs: the last `keepLast`, and each `keepEvery`-th. Where
 * `checkpointEverySteps` is absent, the interval follows from the cost of a save and the mean time between failures.
 */
export const CheckpointSettings = z.strictObject({
  keepLast: z.int().min(2).max(1000).default(2),
  keepEvery: z.int().min(1).optional(),
  meanSecondsBetweenFailures: Seconds.min(1).default(21_600),
})

/**
 * Where and with what a stage runs. Never part of a fingerprint: people with other machines share results.
 * `runner` and `pool` are names from the worker's configuration: a pool says which partition, account and limits.
 */
export const Placement = z.strictObject({
  runner: RunnerName.default('local'),
  pool: Name.optional(),
  nodes: z.int().min(1).max(4096).default(1),
  processesPerNode: z.int().min(1).max(64).default(1),
  gpusPerNode: z.int().min(0).max(64).default(0),
  memoryMiB: z.int().min(1).optional(),
  /** Hosts the scheduler must not use; those that lost a job twice are added by themselves. */
  excludeNodes: z.array(z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9.-]{0,62}$/)).max(1000).default([]),
  threads: z.int().min(1).max(1024).default(1),
  shardsPerJob: z.int().min(1).default(1_000_000),
  batchTokens: z.int().min(64).default(16_384),
  /** Training over several processes: equal copies of the sharded model; it divides their number. */
  replicas: z.int().min(1).max(4096).optional(),
  checkpointEverySteps: z.int().min(1).optional(),
  /** Layers whose activations are computed again in the backward pass, to spare memory: none (absent), all, or every k-th. */
  activationCheckpointing: z.union([z.enum(['none', 'full']), z.int().min(1).max(1000)]).optional(),
  /** Compiles the layers of a training: a minute more at its start, other rounding, on record as numerics. */
  compile: z.boolean().optional(),
  /** Training: the peak of one device in TFLOP/s, where its owner knows better than its name tells; MFU is a share of it. */
  peakTflops: z.number().positive().max(1e6).optional(),
  checkpoints: CheckpointSettings.optional(),
  timeLimitSeconds: z.int().min(1).default(86_400),
  noProgressSeconds: z.int().min(1).default(900),
})
export type Placement = z.infer<typeof Placement>
export type PlacementInput = z.input<typeof Placement>

/** One unit of a map stage: row-aligned inputs of one shard, committed under its own fingerprint. */
export const JobUnit = z.strictObject({ index: Count, fingerprint: Sha256, inputs: z.record(z.string(), z.unknown()) })
export type JobUnit = z.infer<typeof JobUnit>

/** `request.json` of a job: the whole interface of `python -m cpt_ml <stage> --request R --result S`. */
export const JobRequest = z.strictObject({
  format: z.literal('cpt-job/1'),
  stage: z.string(),
  version: z.int().min(1),
  fingerprint: Sha256,
  range: Count,
  attempt: z.int().min(1),
  token: z.string(),
  roots: z.record(z.string(), z.string()),
  request: z.unknown(),
  units: z.array(JobUnit).nullable(),
  parents: z.array(Sha256),
  placement: Placement,
  leaseSeconds: z.number().positive(),
})
export type JobRequest = z.infer<typeof JobRequest>

/** What a job expects to cost, from the tokens before it and its speed on a few batches; `gpuHours` is 0 on a CPU. */
export const CostEstimate = z.object({ tokens: Tokens, flop: z.number().nonnegative(), seconds: Seconds, gpuHours: z.number().nonnegative() })
export type CostEstimate = z.infer<typeof CostEstimate>

/** `beat.json`: what a running job says of itself; replaced atomically, at most a few times a second. */
export const Beat = z.object({
  phase: z.string(),
  done: z.number(),
  total: z.number(),
  unit: z.string(),
  step: Count.optional(),
  tokens: Tokens.optional(),
  loss: z.number().optional(),
  gradNorm: z.number().optional(),
  tokensPerSecond: z.number().optional(),
  /** Share of the peak of all devices, 0 to 1; absent where no peak is known. The job's log has formula and peak. */
  mfu: z.number().optional(),
  /** Of the process that beats: on its GPU, or resident. */
  memoryPeakBytes: Count.optional(),
  lastCommitTokens: Tokens.optional(),
  estimate: CostEstimate.optional(),
  seq: Count,
})
export type Beat = z.infer<typeof Beat>

/** How a job ended. Exit codes are only the fallback for a job that could not write its end record. */
export const EndClass = z.enum(['done', 'bad-data', 'again', 'bad-request', 'do-not-restart', 'superseded', 'diverged', 'stopped', 'orphaned', 'failed', 'killed', 'vanished', 'preempted', 'time-limit', 'node-lost'])
export type EndClass = z.infer<typeof EndClass>

/** What a scheduler says of a job, kept as evidence beside what the job itself wrote. */
export const SchedulerState = z.strictObject({ job: z.string(), state: z.string(), reason: z.string(), exitCode: z.string(), nodes: z.array(z.string()) })
export type SchedulerState = z.infer<typeof SchedulerState>

/** `end.json`, created only if absent: by the job, or for a dead job by the runner that proved it gone. */
export const EndRecord = z.strictObject({
  format: z.literal('cpt-end/1'),
  endClass: EndClass,
  type: z.string(),
  message: z.string(),
  exitCode: z.int().nullable(),
  signal: z.string().nullable(),
  progressTokens: Tokens,
  logTail: z.array(z.string()),
  wallSeconds: Seconds,
  /** Until the first beat of the stage's own code: imports, mostly. */
  startupSeconds: Seconds.optional(),
  scheduler: SchedulerState.optional(),
})
export type EndRecord = z.infer<typeof EndRecord>

/** Exit codes of a job, used where no end record exists. */
export const exitClass: Readonly<Record<number, EndClass>> = {
  0: 'done', 65: 'bad-data', 75: 'again', 78: 'bad-request', 93: 'do-not-restart', 94: 'superseded', 95: 'diverged',
}
