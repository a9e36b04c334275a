import type { DeviceName, TrainingPlan } from '@cpt/activities/plan-training'
import type { CptRunSpec } from '@cpt/contracts/cpt-run'
import { plainText } from '../plain-text.ts'
import { table } from '../run/table.ts'
import { quantity } from '../run/words.ts'

/** 3.25 GB, 410 MB: powers of ten, as makers of devices count. */
export const size = (bytes: number): string => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e3).toFixed(1)} kB`)

/** 12.5 days, 3.2 hours, 14 min */
export const span = (hours: number): string => (hours >= 48 ? `${(hours / 24).toFixed(1)} days` : hours >= 1 ? `${hours.toFixed(1)} hours` : `${Math.ceil(hours * 60)} min`)

const again = (every: number): string => (every === 0 ? 'no activation is computed again' : every === 1 ? 'all layers are computed again in the backward pass' : `${every === 2 ? 'every second layer' : `one layer of ${every}`} is computed again in the backward pass`)

/** What `cpt plan` says to a person. */
export const planWords = (spec: Pick<CptRunSpec, 'name' | 'base' | 'training'>, device: DeviceName, plan: TrainingPlan): string => {
  const { memory, ranks } = plan
  const [least, most] = plan.sequencesPerRank
  const spread = ranks === 1 ? '1 process' : `${ranks} processes${plan.replicas > 1 ? `, ${plan.replicas} copies of the model over ${plan.shard} each` : ', one copy of the model over all'}`
  const lines = [
    `${plainText(spec.name)}: ${plainText(spec.base.model)}, ${quantity(plan.parameters)} parameters, ${spec.training.dtype}`,
    `  ${plan.steps} steps × ${plan.globalBatchTokens} tokens = ${quantity(plan.tokens)} tokens; a global batch is ${plan.sequences} sequences of ${spec.training.sequenceTokens}`,
    `  ${spread} on ${device}: ${least === most ? String(most) : `${least} or ${most}`} sequences a rank and step, as ${plan.microBatchesPerRank} micro-${plan.microBatchesPerRank === 1 ? 'batch' : 'batches'} of ${plan.microBatchSequences}`,
    `  ${again(plan.checkpointEvery)}`,
    '',
    table([`memory of a rank, at its most (${memory.phase})`, 'bytes'], [
      ...Object.entries(memory.parts).map(([part, bytes]) => [part, size(bytes)]),
      ['reserve: allocator and libraries', size(memory.reserve)],
      ['in all', size(memory.total)],
    ]),
    '',
    verdict(plan),
    ...plan.advice.map((line) => `    ${line}`),
    time(plan),
    evaluating(plan),
  ]
  return lines.join('\n')
}

const verdict = ({ fits, deviceBytes, memory, advice }: TrainingPlan): string => {
  if (fits === null || deviceBytes === null) return '  fits? unknown: placement.train.memoryMiB would say what a process may use'
  if (fits) return `  fits: ${size(memory.total)} of ${size(deviceBytes)}`
  return `  does not fit: ${size(memory.total)} of ${size(deviceBytes)}. ${advice.length > 1 ? 'Each of these alone makes it fit:' : 'This makes it fit:'}`
}

/** 989, 0.05: of a peak in FLOP/s */
export const tflops = (peakFlops: number): string => String(Number((peakFlops / 1e12).toPrecision(4)))

const time = ({ tokensPerSecond, hours, assumedMfu, peakFlops, flopsPerToken }: TrainingPlan): string =>
  tokensPerSecond === null || hours === null || peakFlops === null
    ? '  time: unknown, no peak of this device is known (placement.train.peakTflops states one)'
    : `  at an assumed MFU of ${(100 * assumedMfu).toFixed(0)} % of ${tflops(peakFlops)} TFLOP/s: ${quantity(tokensPerSecond)} tokens/s, ${span(hours)} (${(flopsPerToken / 1e9).toFixed(2)} GFLOP a token)`

const evaluating = ({ evaluations, evaluationHours, hours }: TrainingPlan): string =>
  evaluationHours === null || hours === null ? `  evaluations: ${evaluations}`
  : evaluationHours === 0 ? `  without ${evaluations} evaluations (--evaluation-tokens <n> counts them)`
  : `  of it ${evaluations} evaluations: ${span(evaluationHours)}`
