import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { CptRunSpec, plannedTokens, type CptRunInput } from '@cpt/contracts/cpt-run'
import { checkInput, type Problem } from '@cpt/contracts/parse-input'
import { evaluationsOf } from '@cpt/contracts/training-time'
import { z } from 'zod'
import { askPython } from './ask-python.ts'
import { pathUnderRoot } from './artifact-store/roots.ts'
import type { Config } from './config.ts'
import { overPreset, readPreset } from './resolve-input.ts'
import { UnknownPath } from './stage-failure.ts'

/** A kind of device: the name that torch gives it, and the bytes of its memory that can be had. */
export interface Device {
  name: string
  bytes: number | null
}
const gb = 1_000_000_000
/** Devices by the names that a person types. */
export const devices = {
  'h200': { name: 'NVIDIA H200', bytes: 141 * gb },
  'h100': { name: 'NVIDIA H100 80GB HBM3', bytes: 80 * gb },
  'a100': { name: 'NVIDIA A100-SXM4-80GB', bytes: 80 * gb },
  'a100-40': { name: 'NVIDIA A100-SXM4-40GB', bytes: 40 * gb },
  'b200': { name: 'NVIDIA B200', bytes: 180 * gb },
  'l40s': { name: 'NVIDIA L40S', bytes: 48 * gb },
  'cpu': { name: 'cpu', bytes: null },
} as const satisfies Record<string, Device>
export type DeviceName = keyof typeof devices
export const deviceNames = Object.keys(devices) as [DeviceName, ...DeviceName[]]

export const TrainingPlan = z.object({
  parameters: z.number(),
  /** Rows of the embedding, with `base.tokenizer` those that it will have. */
  vocabulary: z.number(),
  steps: z.number(),
  tokens: z.number(),
  globalBatchTokens: z.number(),
  sequences: z.number(),
  ranks: z.number(),
  shard: z.number(),
  replicas: z.number(),
  microBatchSequences: z.number(),
  microBatchesPerRank: z.number(),
  /** Least and most sequences of a global batch that a rank computes. */
  sequencesPerRank: z.tuple([z.number(), z.number()]),
  /** Every so many layers one is computed again; 0: none. */
  checkpointEvery: z.number(),
  memory: z.object({ phase: z.string(), parts: z.record(z.string(), z.number()), phases: z.record(z.string(), z.number()), tensors: z.number(), reserve: z.number(), total: z.number() }),
  deviceBytes: z.number().nullable(),
  fits: z.boolean().nullable(),
  advice: z.array(z.string()),
  flopsPerToken: z.number(),
  formula: z.string(),
  peakFlops: z.number().nullable(),
  assumedMfu: z.number(),
  tokensPerSecond: z.number().nullable(),
  /** Of all training, with `evaluationHours`. */
  hours: z.number().nullable(),
  /** How often the validation sets are scored, and how long that takes; 0 hours where nobody says how many tokens they have. */
  evaluations: z.number(),
  evaluationHours: z.number().nullable(),
})
export type TrainingPlan = z.infer<typeof TrainingPlan>

/** An input that is no complete run, with every problem. */
export class Unplannable extends Error {
  readonly problems: readonly Problem[]
  constructor(problems: readonly Problem[]) {
    super(problems.map((p) => `${p.path}: expected ${p.expected}, got ${p.got}`).join('; '))
    this.problems = problems
  }
}

/**
 * An input over its preset, checked as a run is, but for its files: a plan is made before there are any. An alias of a
 * corpus stays unread, since no part of the training's plan depends on documents. Throws Unplannable.
 */
export const completeInput = async (config: Pick<Config, 'roots' | 'labelModel'>, input: CptRunInput): Promise<CptRunSpec> => {
  const isAlias = input.corpus?.newest !== undefined
  const merged = await overPreset(config, input)
  const preset = isAlias ? Preset.parse(await readPreset(config.roots, input.preset ?? 'quickstart')) : null
  const { data, problems } = checkInput(CptRunSpec, preset === null ? merged : { ...Fields.parse(merged), corpus: preset.corpus })
  if (problems !== null) throw new Unplannable(problems)
  return data
}
const Fields = z.record(z.string(), z.unknown())
const Preset = z.looseObject({ corpus: z.unknown() })

export interface Assumed {
  device: Device
  /** The share of the device's peak that the training is taken to reach. */
  mfu: number
  /** The peak of one device in TFLOP/s, instead of `placement.train.peakTflops` or the one known by its name. */
  peakTflops: number | null
  /** Tokens of the validation sets; null where that is not known. */
  evaluationTokens: number | null
}

/** Memory, steps and time of a run's training, by ml/cpt_ml/memory_plan.py. Throws Unplannable, PythonFailed. */
export const planTraining = async (config: Pick<Config, 'roots' | 'python' | 'home' | 'jobEnv'>, spec: CptRunSpec, { device, mfu, peakTflops, evaluationTokens }: Assumed): Promise<TrainingPlan> => {
  const { train: placement } = spec.placement
  const { activationCheckpointing: again = 'none', processesPerNode, gpusPerNode, memoryMiB } = placement
  const problems: Problem[] = []
  if (gpusPerNode > 0 && processesPerNode > gpusPerNode) problems.push({ path: 'placement.train.processesPerNode', expected: `at most gpusPerNode (${gpusPerNode}): a process has a GPU of its own`, got: String(processesPerNode) })
  const model = await modelFolder(config, spec.base.model).catch((error: unknown) => {
    if (!(error instanceof UnknownPath)) throw error
    problems.push({ path: 'base.model', expected: 'a folder with a config.json', got: error.message })
    return ''
  })
  const tokenizer = await tokenizerFile(config, spec).catch((error: unknown) => {
    if (!(error instanceof UnknownPath)) throw error
    problems.push({ path: 'base.tokenizer', expected: 'a tokenizer.json', got: error.message })
    return null
  })
  if (problems.length > 0) throw new Unplannable(problems)
  const evaluations = evaluationsOf(spec)
  const planned = await askPython(config, 'memory_plan', {
    model,
    tokenizer,
    vocabularyMultipleOf: spec.base.vocabularyMultipleOf ?? 1,
    tokens: plannedTokens(spec),
    evaluatedTokens: evaluations * (evaluationTokens ?? 0),
    sequenceTokens: spec.training.sequenceTokens,
    globalBatchTokens: spec.training.globalBatchTokens,
    batchTokens: placement.batchTokens,
    dtype: spec.training.dtype,
    ranks: placement.nodes * processesPerNode,
    replicas: placement.replicas ?? 1,
    checkpointEvery: again === 'none' ? 0 : again === 'full' ? 1 : again,
    device: device.name,
    deviceBytes: device.name === 'cpu' && memoryMiB !== undefined ? Math.floor((memoryMiB * 2 ** 20) / processesPerNode) : device.bytes,
    assumedMfu: mfu,
    peakTflops: peakTflops ?? placement.peakTflops ?? null,
    documentMasking: spec.training.documentMasking ?? false,
  }, TrainingPlan.omit({ evaluations: true }))
  return { ...planned, evaluations }
}

/** The device that a placement means where nobody says which. */
export const usualDevice = ({ placement: { train } }: Pick<CptRunSpec, 'placement'>): DeviceName => (train.gpusPerNode > 0 ? 'h100' : 'cpu')

const tokenizerFile = async (config: Pick<Config, 'roots'>, { base: { tokenizer } }: CptRunSpec): Promise<string | null> => {
  if (tokenizer === undefined) return null
  const file = await pathUnderRoot(config.roots, tokenizer)
  const found = await stat(file).catch(() => null)
  if (found?.isFile() !== true) throw new UnknownPath(`${tokenizer}: no file (looked at ${file})`)
  return file
}

const modelFolder = async (config: Pick<Config, 'roots'>, uri: string): Promise<string> => {
  const folder = await pathUnderRoot(config.roots, uri.endsWith('/') ? uri : `${uri}/`)
  const found = await stat(join(folder, 'config.json')).catch(() => null)
  if (found === null) throw new UnknownPath(`${uri}: no config.json (looked at ${folder})`)
  return folder
}
