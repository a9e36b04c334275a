import { chart, colour, ink, legend, valueAxis } from '../chart.ts'
import { h, type Html } from '../html.ts'
import { fixed, rate, signed } from '../numbers.ts'
import type { Section } from '../page.ts'
import { figure, note } from '../table.ts'
import { ramp } from './shades.ts'
import { finite, type Cell, type Losses, type SweepView } from './sweep-view.ts'

interface Api {
  value(dimension: number): number
  coord(at: [number, number]): [number, number]
}
interface Params {
  coordSys: { x: number; y: number; width: number; height: number }
}
type At = [rise: number, gain: number]

const symbols = ['circle', 'rect', 'triangle', 'diamond'] as const
const mostLabels = 60
const mostBars = 60

/** What each mixture gained of the added language against what it forgot. */
export const tradeOff = (view: SweepView): Section => {
  const measured = view.cells.filter((c) => isPoint(place(view, c.losses)))
  const body = Number.isNaN(view.base.added) || Number.isNaN(view.base.retained)
    ? h`<p class="absent">The base was not measured, so there is nothing to compare with.</p>`
    : measured.length === 0 ? h`<p class="absent">No trial was measured.</p>` : h`${picture(view, measured)}${words(view, measured)}`
  return { id: 'trade-off', title: 'Gain against forgetting', body }
}

const place = ({ base }: SweepView, { added, retained }: Losses): At => [retained - base.retained, base.added - added]
const isPoint = (at: At): boolean => at.every(Number.isFinite)

const colourOf = (view: SweepView, peakLr: number): string => {
  const i = view.peakLrs.indexOf(peakLr)
  return view.peakLrs.length <= 6 ? colour(i) : ramp(i, view.peakLrs.length)
}

const picture = (view: SweepView, measured: readonly Cell[]): Html => {
  const few = view.peakLrs.length <= 12 ? view.peakLrs : view.peakLrs.filter((_, i) => i % Math.ceil(view.peakLrs.length / 12) === 0)
  const sd = view.request.verdict?.standardDeviation ?? { added: null, retained: null }
  const bars = sd.added !== null && sd.retained !== null && measured.length <= mostBars
  return figure('Each mixture by what it gained and what it forgot', h`${legend([
    ...few.map((lr) => ({ name: `peak LR ${rate(lr)}`, colour: colourOf(view, lr), shape: 'dot' as const })),
    { name: 'Pareto front: nothing gains more and forgets less', colour: ink.soft, shape: 'dash' },
  ])}${drawing(view, measured, bars)}`, `large: mean of a cell, with its ALMR (controls have none); small: one seed${bars ? `; bars: ± one pooled standard deviation between seeds (${fixed(sd.retained, 4)} retained, ${fixed(sd.added, 4)} added)` : ''}`)
}

const drawing = (view: SweepView, measured: readonly Cell[], bars: boolean): Html => {
  const tolerance = finite(view.request.resolved.sweep.choice.retentionToleranceNats)
  const sd = view.request.verdict?.standardDeviation
  const at = (c: Cell): At => place(view, c.losses)
  const seeds = view.trials.map((t) => ({ lr: t.point.peakLr, at: place(view, t.losses) })).filter((t) => isPoint(t.at))
  const front = paretoFront(measured.filter((c) => c.state !== 'incomplete').map(at))
  const [dx, dy] = bars ? [finite(sd?.retained), finite(sd?.added)] : [0, 0]
  // an axis covers the bars too
  const ends = measured.flatMap((c): At[] => [[at(c)[0] - dx, at(c)[1] - dy], [at(c)[0] + dx, at(c)[1] + dy]])
  const xs = [0, tolerance, ...ends.map(([x]) => x), ...seeds.map((s) => s.at[0])]
  return chart('trade-off', measured.slice(0, 60).map((c) => `ALMR ${c.almr}, LR ${rate(c.peakLr)}: gains ${fixed(at(c)[1])}, retained ${signed(at(c)[0])}`).join('; '), 520, {
    grid: { left: 76, right: 40, top: 30, bottom: 52 },
    xAxis: valueAxis('change of the retained loss against the base (nats/token): to the right is forgetting', { min: padded(xs).low, max: padded(xs).high, axisLabel: { color: ink.soft, showMinLabel: false, showMaxLabel: false, formatter: (v: number) => signed(v, decimalsOf(xs)) } }),
    yAxis: valueAxis('gain: fall of the added loss (nats/token)', { nameGap: 54, scale: true, axisLabel: { color: ink.soft, formatter: (v: number) => signed(v, decimalsOf(ends.map(([, y]) => y))) } }),
    series: [
      { type: 'custom', silent: true, z: 0, data: [[tolerance, 0]], renderItem: (params: Params, api: Api) => forbidden(params, api.coord([tolerance, 0])[0]) },
      { type: 'scatter', symbolSize: 0, silent: true, data: ends },
      { type: 'line', symbol: 'none', z: 2, lineStyle: { color: ink.soft, width: 1.6, type: 'dashed' }, data: front },
      ...view.peakLrs.map((lr) => ({ type: 'line', symbol: 'none', z: 2, lineStyle: { color: colourOf(view, lr), width: 1.4, opacity: 0.55 }, data: measured.filter((c) => c.peakLr === lr).map(at) })),
      ...(bars ? [{ type: 'custom', silent: true, z: 3, data: measured.map((c) => [...at(c), view.peakLrs.indexOf(c.peakLr)]), renderItem: (_: unknown, api: Api) => cross(api, dx, dy, colourOf(view, view.peakLrs[api.value(2)] ?? 0)) }] : []),
      ...view.peakLrs.map((lr, i) => ({ type: 'scatter', z: 3, symbol: symbols[i % symbols.length], symbolSize: 5, itemStyle: { color: colourOf(view, lr), opacity: 0.6 }, data: seeds.filter((s) => s.lr === lr).map((s) => s.at) })),
      ...view.peakLrs.map((lr, i) => ({
        type: 'scatter', z: 4, symbol: symbols[i % symbols.length], symbolSize: measured.length > 200 ? 6 : 12,
        data: measured.filter((c) => c.peakLr === lr).map((c) => ({ value: at(c), name: c.almr === 0 ? '' : String(c.almr), label: { distance: c.isChosen ? 10 : 4 }, itemStyle: c.state === 'incomplete' ? { color: ink.paper, borderColor: colourOf(view, lr), borderWidth: 1.6, borderType: [3, 2] } : { color: colourOf(view, lr) } })),
        label: { show: measured.length <= mostLabels, position: 'top', color: ink.text, fontSize: 11, formatter: (p: { name: string }) => p.name },
        labelLayout: { hideOverlap: true },
      })),
      { type: 'scatter', z: 5, symbol: 'circle', symbolSize: 24, itemStyle: { color: 'transparent', borderColor: ink.text, borderWidth: 3 }, data: view.chosen === null ? [] : [{ value: at(view.chosen), name: 'chosen' }] },
    ],
  })
}

const forbidden = ({ coordSys: { x, y, width, height } }: Params, from: number): object => ({
  type: 'group',
  children: [
    { type: 'rect', shape: { x: Math.min(from, x + width), y, width: Math.max(0, x + width - from), height }, style: { fill: 'var(--bad-tint)', opacity: 0.55 } },
    { type: 'line', shape: { x1: from, x2: from, y1: y, y2: y + height }, style: { stroke: ink.bad, lineWidth: 1.6, lineDash: [6, 4] } },
    { type: 'text', x: from + 6, y: y + 4, style: { text: 'forgets more than allowed →', fill: ink.bad, fontSize: 11.5, fontFamily: 'inherit' } },
  ],
})

const cross = (api: Api, dx: number, dy: number, stroke: string): object => {
  const [x, y] = [api.value(0), api.value(1)]
  const line = (from: At, to: At): object => {
    const [[x1, y1], [x2, y2]] = [api.coord(from), api.coord(to)]
    return { type: 'line', shape: { x1, y1, x2, y2 }, style: { stroke, lineWidth: 1.2, opacity: 0.8 } }
  }
  return { type: 'group', children: [line([x - dx, y], [x + dx, y]), line([x, y - dy], [x, y + dy])] }
}

/** Points that no other beats in gain without forgetting more, from the least forgetting on. */
export const paretoFront = (points: readonly At[]): At[] => {
  let most = Number.NEGATIVE_INFINITY
  return [...points].sort((a, b) => a[0] - b[0] || b[1] - a[1]).filter(([, gain]) => {
    if (gain <= most) return false
    most = gain
    return true
  })
}

/** Enough for the labels of an axis to differ. */
const decimalsOf = (values: readonly number[]): number => {
  const reach = Math.max(...values) - Math.min(...values)
  return reach < 0.01 ? 4 : reach < 0.1 ? 3 : 2
}

const padded = (xs: readonly number[]): { low: number; high: number } => {
  const [low, high] = [Math.min(...xs), Math.max(...xs)]
  const pad = 0.06 * (high - low || 1)
  return { low: low - pad, high: high + pad }
}

const words = (view: SweepView, measured: readonly Cell[]): Html => {
  const keeps = measured.filter((c) => c.losses.retained <= view.bound && c.almr > 0 && c.state !== 'incomplete').length
  const candidates = measured.filter((c) => c.almr > 0 && c.state !== 'incomplete').length
  return note(`${keeps} of ${candidates} complete mixtures keep the retained loss within what is allowed. ${measured.length > mostLabels ? 'Labels and bars are left out where there are so many cells. ' : ''}${view.chosen === null ? 'None is ringed: nothing was chosen.' : 'The chosen one is ringed.'}${measured.some((c) => c.state === 'incomplete') ? ' Hollow: a cell that lacks a seed.' : ''}`)
}
