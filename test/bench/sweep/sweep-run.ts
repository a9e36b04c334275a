import type { StratumLoss } from '@cpt/contracts/evaluate-perplexity'

/** One job of one trial, from when it begins to compute (imports done) to its end; ms since the epoch. */
export interface Span {
  index: number
  stage: string
  fromMs: number
  toMs: number
}

/** What a trial ended with: bits of the model and losses of the validation sets. */
export interface Trained {
  weightsSha256: string
  strata: StratumLoss[]
}

/** One sweep, whoever drove it: `spans` lack jobs that were killed. */
export interface SweepRun {
  driver: string
  beganMs: number
  endedMs: number
  spans: Span[]
  trials: ReadonlyMap<number, Trained>
}

/** What a sweep lost that was killed half-way and started again. */
export interface Loss {
  driver: string
  how: string
  /** Trials that had ended before and were run again. */
  trialsAgain: number
  /** Trials that had trained and began at their first token again. */
  trialsFromZero: number
  /** By trial in training when killed: tokens trained twice, whole steps only. */
  tokensTwice: number[]
  /** Start to end, the outage included. */
  wallSeconds: number
}

export const wallSeconds = ({ beganMs, endedMs }: SweepRun): number => (endedMs - beganMs) / 1000

const lengthMs = ({ fromMs, toMs }: Span): number => toMs - fromMs
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)

/**
 * Share of the lanes' time, from the start of the sweep to its verdict, in which no job of a trial computes. There are
 * `parallel` lanes while so many trials are left, then as many as trials are left, and one from the last trial to the end.
 */
export const idleShare = (run: SweepRun, parallel: number): number => 1 - sum(run.spans.map(lengthMs)) / laneMs(run, parallel)

const laneMs = ({ beganMs, endedMs, spans, trials }: SweepRun, parallel: number): number => {
  const ends = [...trials.keys()].map((index) => Math.max(...spans.filter((s) => s.index === index).map((s) => s.toMs))).sort((a, b) => a - b)
  let [total, at] = [0, beganMs]
  for (const [ended, end] of [...ends, endedMs].entries()) {
    total += (end - at) * Math.min(parallel, Math.max(1, ends.length - ended))
    at = end
  }
  return total
}

/** Where the lanes' time went, in seconds: by stage of the trials, and without a job of theirs before the first, between them and after the last. */
export const profile = (run: SweepRun, parallel: number): Record<string, number> => {
  const { beganMs, endedMs, spans, trials } = run
  const stages = [...new Set(spans.map((s) => s.stage))].sort()
  const byStage = stages.map((stage): [string, number] => [stage, sum(spans.filter((s) => s.stage === stage).map(lengthMs))])
  const before = (Math.min(...spans.map((s) => s.fromMs)) - beganMs) * Math.min(parallel, trials.size)
  const after = endedMs - Math.max(...spans.map((s) => s.toMs))
  const between = laneMs(run, parallel) - before - after - sum(byStage.map(([, ms]) => ms))
  const parts: [string, number][] = [...byStage, ['before the first job', before], ['between jobs', between], ['after the last job', after]]
  return Object.fromEntries(parts.map(([name, ms]) => [name, Number((ms / 1000).toFixed(2))]))
}

/** Largest difference of any loss between two sweeps, in nats per token, and how many trials have other bits. Throws where one lacks a trial. */
export const compare = (ours: SweepRun, theirs: SweepRun): { largest: number; otherBits: number } => {
  let [largest, otherBits] = [0, 0]
  for (const [index, trial] of ours.trials) {
    const other = theirs.trials.get(index)
    if (other === undefined || other.strata.length !== trial.strata.length) throw new Error(`${theirs.driver}: trial ${index} has no losses to compare`)
    if (other.weightsSha256 !== trial.weightsSha256) otherBits += 1
    for (const [i, stratum] of trial.strata.entries()) largest = Math.max(largest, Math.abs(stratum.nllPerToken - other.strata[i]!.nllPerToken))
  }
  return { largest, otherBits }
}
