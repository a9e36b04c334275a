import { chart, ink, legend, valueAxis, widthPx } from '../chart.ts'
import { h, type Html } from '../html.ts'
import { count, fixed, plural, rate, short } from '../numbers.ts'
import type { Section } from '../page.ts'
import { details, figure, note, table } from '../table.ts'
import type { CurvePoint } from '../view.ts'
import { extent, ramp } from './shades.ts'
import type { SweepView, Trial } from './sweep-view.ts'
import { runLink, statusBadge } from './trials.ts'

const [mostPanels, mostAlmrs, mostSeeds, mostPoints] = [9, 12, 3, 24_000]

/** The trials whose curves are drawn: of many learning rates, ALMRs and seeds some, those of the chosen cell among them. */
export const trialsDrawn = (view: SweepView): Trial[] => {
  const lrs = new Set(someOf(view.peakLrs, mostPanels, view.chosen?.peakLr))
  const almrs = new Set(someOf(view.almrs, mostAlmrs, view.chosen?.almr))
  return view.cells.filter((c) => lrs.has(c.peakLr) && almrs.has(c.almr)).flatMap((c) => c.trials.filter((t) => t.measurement !== null).slice(0, mostSeeds))
}

/** How the trials trained, a panel for each learning rate. */
export const curves = (view: SweepView): Section => {
  const drawn = trialsDrawn(view)
  const found = drawn.map((trial) => ({ trial, points: (view.source.curves.get(trial.measurement?.training ?? '') ?? []).filter((p) => Number.isFinite(p.loss)) }))
  const shown = found.filter((c) => c.points.length > 0)
  const lost = found.filter((c) => c.points.length === 0).map((c) => c.trial)
  const unmeasured = view.trials.filter((t) => t.measurement === null).length
  const left = view.trials.length - unmeasured - drawn.length
  const body = h`
${shown.length === 0 ? h`<p class="absent">No training curve to show: ${drawn.length === 0 ? 'no trial was trained to its end' : 'the curve files were not found'}.</p>` : figure('Training loss of each trial', h`${legend(almrsOf(view).map((almr) => ({ name: almr === 0 ? 'ALMR 0 (control)' : `ALMR ${almr}`, colour: colourOf(view, almr), shape: 'line' as const })))}${panels(view, shown)}`, 'running mean; a line for each seed, heavy: the chosen cell')}
${lost.length === 0 ? '' : h`<p class="absent">The curves of ${plural(lost.length, 'trial')} were not found.</p>${details('Which', table<Trial>([{ head: 'Trial', numeric: true, cell: (t) => t.index }, { head: 'Status', cell: (t) => statusBadge(t.status) }, { head: 'Training', code: true, cell: (t) => t.measurement?.training ?? '' }, { head: 'Run', cell: runLink }], lost))}`}
${left > 0 ? note(`${count(drawn.length)} of ${count(drawn.length + left)} trained trials are drawn: at most ${mostPanels} learning rates, ${mostAlmrs} ALMRs and ${mostSeeds} seeds of each, those of the chosen cell among them.`) : ''}
${unmeasured > 0 ? note(`${plural(unmeasured, 'trial')} without a result ${unmeasured === 1 ? 'has' : 'have'} no curve here; what such a trial trained is on its own page.`) : ''}
${note('Loss in nats per target token of the global batch. It follows the mixture: a trial with another ALMR reads other text, so curves of different colours differ before anything is learned. What is compared is measured on the frozen sets.')}`
  return { id: 'curves', title: 'Training curves', body }
}

interface Curve {
  trial: Trial
  points: readonly CurvePoint[]
}

const panels = (view: SweepView, shown: readonly Curve[]): Html => {
  const lrs = view.peakLrs.filter((lr) => shown.some((c) => c.trial.point.peakLr === lr))
  const columns = Math.min(3, lrs.length)
  const [left, gap, top, height, step] = [58, 24, 30, lrs.length === 1 ? 300 : 190, lrs.length === 1 ? 360 : 262]
  const width = (widthPx - left - 16 - (columns - 1) * gap) / columns
  const perCurve = Math.max(16, Math.min(160, Math.floor(mostPoints / shown.length)))
  const smooth = shown.map((c) => ({ ...c, points: averaged(c.points, perCurve) }))
  const { low, high, isCut } = extent(smooth.flatMap((c) => c.points.map((p) => p.loss)))
  const end = Math.max(...smooth.map((c) => c.points.at(-1)?.tokens ?? 0))
  const isFirst = (i: number): boolean => i % columns === 0
  const pad = 0.04 * (high - low || 1)
  return h`${chart('curves', lrs.map((lr) => `LR ${rate(lr)}: ${smooth.filter((c) => c.trial.point.peakLr === lr).map((c) => `ALMR ${c.trial.point.almr} seed ${c.trial.point.seed} ends at ${fixed(c.points.at(-1)?.loss)}`).slice(0, 12).join(', ')}`).join('; '), top + (Math.ceil(lrs.length / columns) - 1) * step + height + 52, {
    title: lrs.map((lr, i) => ({ text: `peak LR ${rate(lr)}${lr === view.chosen?.peakLr ? ', chosen' : ''}`, left: left + (i % columns) * (width + gap), top: top - 26 + Math.floor(i / columns) * step, textStyle: { color: ink.text, fontSize: 13, fontWeight: 600, fontFamily: 'inherit' }, padding: 0 })),
    grid: lrs.map((_, i) => ({ left: left + (i % columns) * (width + gap), width, top: top + Math.floor(i / columns) * step, height })),
    xAxis: lrs.map((_, i) => valueAxis(i >= lrs.length - columns ? 'tokens trained' : '', { gridIndex: i, min: 0, max: end, splitNumber: 3, splitLine: { show: false }, axisLabel: { color: ink.soft, fontSize: 11, showMaxLabel: false, formatter: (v: number) => short(v) } })),
    yAxis: lrs.map((_, i) => valueAxis(isFirst(i) ? 'loss (nats/token)' : '', { gridIndex: i, min: low - pad, max: high + pad, nameGap: 40, axisLabel: { show: isFirst(i), color: ink.soft, fontSize: 11, formatter: (v: number) => fixed(v, 2) } })),
    series: smooth.map(({ trial, points }) => {
      const isChosen = trial.point.almr === view.chosen?.almr && trial.point.peakLr === view.chosen.peakLr
      return { type: 'line', xAxisIndex: lrs.indexOf(trial.point.peakLr), yAxisIndex: lrs.indexOf(trial.point.peakLr), symbol: 'none', clip: true, z: isChosen ? 3 : 2, lineStyle: { color: colourOf(view, trial.point.almr), width: isChosen ? 3 : 1.3, type: trial.point.almr === 0 ? 'dashed' : 'solid', opacity: isChosen ? 1 : 0.85 }, data: points.map((p) => [p.tokens, p.loss]) }
    }),
  })}${isCut ? note(`Losses above ${fixed(high, 2)} nats per token are cut off.`) : ''}`
}

const almrsOf = (view: SweepView): number[] => someOf(view.almrs, mostAlmrs, view.chosen?.almr)
const colourOf = (view: SweepView, almr: number): string => (almr === 0 ? 'var(--c8)' : ramp(view.almrs.indexOf(almr) - (view.almrs[0] === 0 ? 1 : 0), view.almrs.length - (view.almrs[0] === 0 ? 1 : 0)))

/** At most `most` of the values, evenly from the first to the last, and `kept` in any case. */
const someOf = (values: readonly number[], most: number, kept: number | undefined): number[] => {
  if (values.length <= most) return [...values]
  const even = new Set(Array.from({ length: most - 1 }, (_, i) => values[Math.round((i * (values.length - 1)) / (most - 2))]))
  if (kept !== undefined) even.add(kept)
  return values.filter((v) => even.has(v))
}

/** At most `most` points, each the mean of its neighbours, smoothed over a twentieth of the curve. */
const averaged = (points: readonly CurvePoint[], most: number): { tokens: number; loss: number }[] => {
  const every = Math.max(1, Math.ceil(points.length / most))
  const half = Math.max(1, Math.floor(points.length / 40))
  return points.flatMap((p, i) => {
    if (i % every !== 0 && i !== points.length - 1) return []
    const near = points.slice(Math.max(0, i - half), i + half + 1)
    return [{ tokens: p.tokens, loss: near.reduce((sum, x) => sum + x.loss, 0) / near.length }]
  })
}
