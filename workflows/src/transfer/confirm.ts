import type { ConfirmationVerdict, ConfirmedPoint } from '@cpt/contracts/model-transfer'
import type { ChoiceSettings, LanguageLoss, SweepCell, TrialOutcome } from '@cpt/contracts/sweep'
import type { Planned, Role } from './points.ts'

type Losses = Record<'added' | 'retained', LanguageLoss>

export interface Confirmable {
  points: readonly Planned[]
  /** Sides on which the grid of the sweep ends. */
  without: readonly Role[]
  /** Of the target, at `points[i]` for each i in `pointOf`. */
  trials: readonly TrialOutcome[]
  /** Which point a trial belongs to, by its index. */
  pointOf: readonly number[]
  /** Of the target's base. */
  base: Losses
  /** What the proxy found; null without a sweep. */
  proxy: { cells: readonly SweepCell[]; base: Losses; standardDeviation: number | null } | null
  /** Whether proxy and target count the same tokens: else their losses compare per byte alone. */
  sameTokenizer: boolean
  settings: ChoiceSettings
}

/**
 * Judges a proxy's choice by a short run on the target. The choice holds when its retained loss stays within the tolerance
 * (nats per token of the target, against the target's own base) and no feasible neighbour has a lower loss of the added
 * language by more than z standard errors of a difference, taken from the seeds of the proxy's sweep.
 */
export const confirm = ({ points, without, trials, pointOf, base, proxy, sameTokenizer, settings }: Confirmable): ConfirmationVerdict => {
  const unit = sameTokenizer ? 'perToken' : 'perByte'
  const rows = points.map((point, i): ConfirmedPoint & { added: number | null; seeds: number } => {
    const measured = trials.filter((t) => pointOf[t.index] === i).flatMap((t) => (t.measurement === null ? [] : [t.measurement]))
    const mean = (of: (m: Losses) => number): number => measured.reduce((sum, m) => sum + of(m), 0) / measured.length
    const cell = proxy?.cells.find((c) => c.almr === point.almr && c.peakLr === point.proxyLr)
    return {
      ...point,
      predicted: proxy === null || cell?.added == null || cell.retained == null ? null : { added: cell.added[unit] - proxy.base.added[unit], retained: cell.retained[unit] - proxy.base.retained[unit] },
      found: measured.length === 0 ? null : { added: mean((m) => m.added[unit]) - base.added[unit], retained: mean((m) => m.retained[unit]) - base.retained[unit] },
      feasible: measured.length === 0 ? null : mean((m) => m.retained.perToken) - base.retained.perToken <= settings.retentionToleranceNats,
      added: measured.length === 0 ? null : mean((m) => m.added.perToken),
      seeds: measured.length,
    }
  })
  const chosen = rows.find((r) => r.role === 'chosen')
  const margin = (a: number, b: number): number => settings.z * (proxy?.standardDeviation ?? 0) * Math.sqrt(1 / a + 1 / b)
  const better = rows.filter((r) => r.role !== 'chosen' && r.feasible === true && r.added !== null && chosen?.added != null && r.added < chosen.added - margin(r.seeds, chosen.seeds)).sort((a, b) => (a.added ?? 0) - (b.added ?? 0))
  const outcome: ConfirmationVerdict['outcome'] = chosen?.found == null ? 'incomplete' : chosen.feasible === false ? 'refuted' : better.length > 0 ? 'moved' : 'holds'
  const verdict = { format: 'cpt-confirmation/1' as const, outcome, unit: sameTokenizer ? 'nats/token' as const : 'nats/byte' as const, points: rows.map(({ added: _added, seeds: _seeds, ...row }) => row) }
  return { ...verdict, words: words(verdict, better[0], without, proxy !== null, settings) }
}

const names: Record<Role, string> = { chosen: 'the choice', 'less-almr': 'less of the added language', 'more-almr': 'more of the added language', 'lower-lr': 'the lower learning rate', 'higher-lr': 'the higher learning rate' }
const signed = (value: number): string => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(4)}`

const words = ({ outcome, points, unit }: Omit<ConfirmationVerdict, 'words'>, better: ConfirmedPoint | undefined, without: readonly Role[], hasProxy: boolean, settings: ChoiceSettings): string[] => {
  const chosen = points.find((p) => p.role === 'chosen')
  const found = chosen?.found
  const headline = {
    holds: 'The choice of the proxy holds on the target: it forgets no more than is allowed, and no neighbour that does is better.',
    moved: `The optimum has moved on the target: ${better === undefined ? '' : `${names[better.role]} (ALMR ${better.almr} at ${better.targetLr}) is better, and feasible`}.`,
    refuted: `The choice does not hold on the target: its retained loss rises by more than the allowed ${settings.retentionToleranceNats} nats/token.`,
    incomplete: 'The choice was not measured on the target: its trial has no result.',
  }[outcome]
  const wrong = points.filter((p) => p.predicted !== null && p.found !== null && Math.sign(p.predicted.added) !== Math.sign(p.found.added))
  return [
    headline,
    ...found == null || chosen === undefined ? [] : [`ALMR ${chosen.almr} at ${chosen.targetLr}: added language ${signed(found.added)} ${unit} against the base${chosen.predicted === null ? '' : ` (the proxy: ${signed(chosen.predicted.added)})`}, retained ${signed(found.retained)}${chosen.predicted === null ? '' : ` (the proxy: ${signed(chosen.predicted.retained)})`}.`],
    ...hasProxy ? [] : ['There is no sweep behind the choice: nothing predicted it.'],
    ...wrong.length === 0 ? [] : [`The proxy had the direction of the added language wrong at: ${wrong.map((p) => names[p.role]).join(', ')}.`],
    ...without.length === 0 ? [] : [`Not tried, for the grid of the sweep ends there: ${without.map((r) => names[r]).join(', ')}.`],
    ...points.filter((p) => p.role !== 'chosen' && p.found === null).map((p) => `Without a result: ${names[p.role]}.`),
  ]
}
