import type { ChoiceSettings, LanguageLoss, SweepCell, SweepVerdict, TrialMeasurement, TrialOutcome } from '@cpt/contracts/sweep'

type Languages = 'added' | 'retained'
type Measured = Record<Languages, LanguageLoss>

/**
 * The winner of a sweep over ALMR and peak learning rate (arXiv:2409.06624), by the rule of arXiv:2407.17467: feasible is
 * a cell whose mean retained loss is at most the base's + tolerance; among the feasible the lowest mean loss of the added
 * language wins. Controls (ALMR 0) and cells that lack a seed are no candidates. Losses are nats per token, means are
 * over seeds; their variance is pooled over all cells, since two or three seeds of one tell little. Order of `trials`
 * does not matter.
 */
export const chooseCell = (trials: readonly TrialOutcome[], base: Measured, settings: ChoiceSettings): SweepVerdict => {
  const groups = cellsOf(trials)
  const bound = base.retained.perToken + settings.retentionToleranceNats
  const cells = groups.map((group) => summary(group, bound))
  const deviation = { added: pooledDeviation(groups, 'added'), retained: pooledDeviation(groups, 'retained') }
  const complete = cells.filter(isMeasured)
  const feasible = complete.filter((c) => c.state === 'feasible').sort(better)
  const [best] = feasible
  const chosen = best === undefined ? null : { almr: best.almr, peakLr: best.peakLr, added: best.added, retained: best.retained }
  const errorOf = (cell: SweepCell, of: Languages): number | null => (deviation[of] === null ? null : deviation[of] / Math.sqrt(cell.measured))
  const ties = best === undefined ? [] : feasible.slice(1).filter((c) => isTie(c.added.perToken - best.added.perToken, errorOf(c, 'added'), errorOf(best, 'added'), settings.z))
  const edges = best === undefined ? [] : edgesOf(best, cells)
  const missing = trials.filter((t) => t.measurement === null).map(({ index, point, status }) => ({ index, point, status })).sort((a, b) => a.index - b.index)
  const verdict = { chosen, ties: ties.map(({ almr, peakLr }) => ({ almr, peakLr })), edges, cells, standardDeviation: deviation, base, settings, missing }
  return { format: 'cpt-sweep-verdict/1', ...verdict, words: words(verdict, best, best === undefined ? null : errorOf(best, 'retained'), complete) }
}

type Group = Pick<TrialOutcome['point'], 'almr' | 'peakLr'> & { seeds: number; measurements: TrialMeasurement[] }
type MeasuredCell = SweepCell & Measured

const cellsOf = (trials: readonly TrialOutcome[]): Group[] => {
  const groups = new Map<string, Group>()
  // sums of floating-point numbers depend on their order
  for (const { point: { almr, peakLr }, measurement } of [...trials].sort((a, b) => a.index - b.index)) {
    const group = groups.get(`${almr} ${peakLr}`) ?? { almr, peakLr, seeds: 0, measurements: [] }
    groups.set(`${almr} ${peakLr}`, group)
    group.seeds += 1
    if (measurement !== null) group.measurements.push(measurement)
  }
  return [...groups.values()].sort((a, b) => a.almr - b.almr || a.peakLr - b.peakLr)
}

const summary = ({ almr, peakLr, seeds, measurements }: Group, bound: number): SweepCell => {
  const cell = { almr, peakLr, seeds, measured: measurements.length }
  if (measurements.length === 0) return { ...cell, added: null, retained: null, state: 'incomplete' }
  const [added, retained] = (['added', 'retained'] as const).map((of) => ({ perToken: mean(measurements.map((m) => m[of].perToken)), perByte: mean(measurements.map((m) => m[of].perByte)) })) as [LanguageLoss, LanguageLoss]
  const state = measurements.length < seeds ? 'incomplete' : almr === 0 ? 'control' : retained.perToken <= bound ? 'feasible' : 'infeasible'
  return { ...cell, added, retained, state }
}

const isMeasured = (cell: SweepCell): cell is MeasuredCell => cell.added !== null && cell.retained !== null && cell.state !== 'incomplete'

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length

/** Square root of Σ (x − mean of its cell)² ÷ Σ (seeds of the cell − 1); null where no cell has two. */
const pooledDeviation = (groups: readonly Group[], of: Languages): number | null => {
  const samples = groups.map((g) => g.measurements.map((m) => m[of].perToken)).filter((s) => s.length > 1)
  const degrees = samples.reduce((sum, s) => sum + s.length - 1, 0)
  if (degrees === 0) return null
  return Math.sqrt(samples.reduce((sum, s) => sum + s.reduce((a, x) => a + (x - mean(s)) ** 2, 0), 0) / degrees)
}

/** Lower loss of the added language first; of equals the one that forgets less, then the gentler one. */
const better = (a: MeasuredCell, b: MeasuredCell): number =>
  a.added.perToken - b.added.perToken || a.retained.perToken - b.retained.perToken || a.peakLr - b.peakLr || a.almr - b.almr

/** Whether a difference of two means is within z of its standard error; without an error only equal ones are. */
const isTie = (difference: number, a: number | null, b: number | null, z: number): boolean => difference <= (a === null || b === null ? 0 : z * Math.hypot(a, b))

/** Where the grid ends beside the chosen cell. A side of one value is both ends of it; the control is no value. */
const edgesOf = (best: SweepCell, cells: readonly SweepCell[]): SweepVerdict['edges'] => {
  const almr = cells.map((c) => c.almr).filter((a) => a > 0)
  const lrs = cells.map((c) => c.peakLr)
  return [
    ...(best.almr === Math.min(...almr) ? ['smallest-almr' as const] : []),
    ...(best.almr === Math.max(...almr) ? ['largest-almr' as const] : []),
    ...(best.peakLr === Math.min(...lrs) ? ['smallest-lr' as const] : []),
    ...(best.peakLr === Math.max(...lrs) ? ['largest-lr' as const] : []),
  ]
}

const edgeWords: Record<SweepVerdict['edges'][number], string> = {
  'smallest-almr': 'the smallest ALMR above the control', 'largest-almr': 'the largest ALMR', 'smallest-lr': 'the smallest learning rate', 'largest-lr': 'the largest learning rate',
}

const at = ({ almr, peakLr }: Pick<SweepCell, 'almr' | 'peakLr'>): string => `ALMR ${almr} at peak learning rate ${peakLr}`
const nats = (value: number): string => `${value.toFixed(4)} nats/token`
const signed = (value: number): string => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(4)}`

const words = ({ ties, edges, cells, standardDeviation, base, settings, missing }: Omit<SweepVerdict, 'format' | 'words'>, best: MeasuredCell | undefined, retainedError: number | null, complete: readonly MeasuredCell[]): string[] => {
  const gaps = missing.length === 0 ? [] : [`${missing.length} of ${cells.reduce((sum, c) => sum + c.seeds, 0)} trials have no result: ${missing.slice(0, 8).map((m) => `trial ${m.index} (${at(m.point)}, seed ${m.point.seed}: ${m.status})`).join('; ')}${missing.length > 8 ? '; …' : ''}. Cells that lack a seed were no candidates.`]
  if (best === undefined) {
    const tried = complete.filter((c) => c.almr > 0).sort((a, b) => a.retained.perToken - b.retained.perToken)[0]
    const nearest = tried === undefined ? 'No cell of the grid is complete.' : `The gentlest was ${at(tried)}: retained ${nats(tried.retained.perToken)}, ${signed(tried.retained.perToken - base.retained.perToken)} against the base, allowed +${settings.retentionToleranceNats}. Try a smaller learning rate or ALMR.`
    return [`Nothing is feasible, so nothing was chosen. ${nearest}`, ...gaps]
  }
  const rise = best.retained.perToken - base.retained.perToken
  const control = complete.find((c) => c.state === 'control' && c.peakLr === best.peakLr)
  const unfinished = cells.filter((c) => c.state === 'incomplete' && c.almr > 0 && c.added !== null && c.added.perToken < best.added.perToken)
  return [
    `Chosen: ${at(best)}. Added language ${nats(best.added.perToken)} (${signed(best.added.perToken - base.added.perToken)} against the base), retained ${nats(best.retained.perToken)} (${signed(rise)}, allowed +${settings.retentionToleranceNats}).`,
    ...edges.length === 0 ? [] : [`AT THE EDGE OF THE GRID: it is ${edges.map((e) => edgeWords[e]).join(' and ')} that was tried. The optimum may lie beyond: widen the grid there.`],
    ...ties.length === 0 ? [] : [`Not to be told from it at ${settings.z} standard errors: ${ties.map(at).join('; ')}. More seeds would tell.`],
    ...standardDeviation.added === null ? ['Every cell has one seed: nothing is known of the variance between seeds, so ties cannot be told.'] : [],
    ...retainedError !== null && settings.retentionToleranceNats - rise < settings.z * retainedError ? [`That it is feasible is not shown: its retained loss is within ${settings.z} standard errors (${nats(retainedError)}) of what is allowed.`] : [],
    ...control !== undefined && control.added.perToken <= best.added.perToken ? [`The control without the added language (${nats(control.added.perToken)}) is as good at it: this mixture gained nothing.`] : [],
    ...unfinished.length === 0 ? [] : [`Better so far, but not complete: ${unfinished.map(at).join('; ')}.`],
    ...gaps,
  ]
}
