import type { SweepReportRequest } from '@cpt/contracts/activities'
import type { LanguageLoss, SweepCell, TrialOutcome } from '@cpt/contracts/sweep'
import type { ReportSource } from '../view.ts'

/** Losses of both languages; NaN where nothing was measured, or what was measured is no number. */
export interface Losses {
  added: number
  retained: number
  addedPerByte: number
  retainedPerByte: number
}

export interface Trial extends TrialOutcome {
  /** Its page in the Temporal UI; null where no UI is known, and of a trial that never began. */
  page: string | null
  losses: Losses
}

/** `unjudged`: complete, but the base it would be judged against was not measured. */
export type CellState = SweepCell['state'] | 'unjudged'

/** All seeds of one ALMR and learning rate; losses are means over the seeds that were measured. */
export interface Cell {
  almr: number
  peakLr: number
  seeds: number
  measured: number
  state: CellState
  losses: Losses
  isChosen: boolean
  isTied: boolean
  trials: readonly Trial[]
}

export interface SweepView {
  request: SweepReportRequest
  source: ReportSource
  /** Ascending. */
  almrs: readonly number[]
  peakLrs: readonly number[]
  /** By ALMR, then learning rate. */
  cells: readonly Cell[]
  /** By index. */
  trials: readonly Trial[]
  base: Losses
  /** Highest retained loss per token that is feasible; NaN where the base was not measured. */
  bound: number
  chosen: Cell | null
}

/** Where the Temporal UI shows a workflow; null: no UI is known. */
export type PageOf = (workflowId: string) => string | null

export const sweepViewOf = (request: SweepReportRequest, source: ReportSource, pageOf: PageOf): SweepView => {
  const trials = [...request.trials].sort((a, b) => a.index - b.index).map((t): Trial => ({ ...t, page: t.status === 'unstarted' ? null : pageOf(t.workflowId), losses: lossesOf(t.measurement) }))
  const base = lossesOf(request.verdict?.base ?? request.base)
  const bound = base.retained + finite(request.resolved.sweep.choice.retentionToleranceNats)
  const cells = cellsOf(request, trials, bound)
  return { request, source, trials, cells, almrs: ascending(cells.map((c) => c.almr)), peakLrs: ascending(cells.map((c) => c.peakLr)), base, bound, chosen: cells.find((c) => c.isChosen) ?? null }
}

/** What JSON made null of, because it is no number, is none here either. */
export const finite = (n: number | null | undefined): number => (typeof n === 'number' && Number.isFinite(n) ? n : Number.NaN)

export const lossesOf = (of: { added: LanguageLoss | null; retained: LanguageLoss | null } | null): Losses => ({
  added: finite(of?.added?.perToken), retained: finite(of?.retained?.perToken), addedPerByte: finite(of?.added?.perByte), retainedPerByte: finite(of?.retained?.perByte),
})

const keyOf = ({ almr, peakLr }: { almr: number; peakLr: number }): string => `${almr} ${peakLr}`

/** The verdict's cells; before there is a verdict they are what the trials say so far. */
const cellsOf = ({ verdict }: SweepReportRequest, trials: readonly Trial[], bound: number): Cell[] => {
  const groups = new Map<string, Trial[]>()
  for (const trial of trials) groups.set(keyOf(trial.point), [...(groups.get(keyOf(trial.point)) ?? []), trial])
  const judged = new Map(verdict?.cells.map((c) => [keyOf(c), c]))
  const ties = new Set(verdict?.ties.map(keyOf))
  const chosen = verdict?.chosen == null ? null : keyOf(verdict.chosen)
  for (const key of judged.keys()) if (!groups.has(key)) groups.set(key, [])
  return [...groups].map(([key, own]): Cell => {
    const told = judged.get(key)
    const [almr = 0, peakLr = 0] = key.split(' ').map(Number)
    const losses = told === undefined ? meanOf(own) : lossesOf(told)
    const [seeds, measured] = told === undefined ? [own.length, own.filter((t) => t.measurement !== null).length] : [told.seeds, told.measured]
    return { almr, peakLr, seeds, measured, losses, trials: own, isChosen: key === chosen, isTied: ties.has(key), state: told?.state ?? stateOf(almr, measured < seeds, losses, bound) }
  }).sort((a, b) => a.almr - b.almr || a.peakLr - b.peakLr)
}

const stateOf = (almr: number, lacks: boolean, { retained }: Losses, bound: number): CellState => {
  if (lacks) return 'incomplete'
  if (almr === 0) return 'control'
  return Number.isNaN(retained) || Number.isNaN(bound) ? 'unjudged' : retained <= bound ? 'feasible' : 'infeasible'
}

const meanOf = (trials: readonly Trial[]): Losses => {
  const measured = trials.filter((t) => t.measurement !== null)
  const mean = (of: (l: Losses) => number): number => measured.reduce((sum, t) => sum + of(t.losses), 0) / measured.length
  return { added: mean((l) => l.added), retained: mean((l) => l.retained), addedPerByte: mean((l) => l.addedPerByte), retainedPerByte: mean((l) => l.retainedPerByte) }
}

const ascending = (values: readonly number[]): number[] => [...new Set(values)].sort((a, b) => a - b)
