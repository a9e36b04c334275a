import { h, type Html } from '../html.ts'
import { fixed, rate, signed } from '../numbers.ts'
import type { Shades } from './shades.ts'
import type { Cell, Losses, SweepView, Trial } from './sweep-view.ts'

export interface HeatMap {
  id: string
  /** What the cells show: a loss in nats per token. */
  of: keyof Losses
  /** What it is compared with; NaN: nothing. */
  base: number
  shades: Shades
  /** Values named on the scale beside its ends. */
  ticks: readonly { value: number; name: string }[]
}

/** More than so many columns, and the maps stand one below the other. */
export const mostPairedColumns = 6
/** A page links each seed's run from the cell where there are at most so many, else the first of every cell; the table has all. */
const mostLinks = 3000

interface Layout {
  width: number
  height: number
  left: number
  top: number
  cellWidth: number
  cellHeight: number
  /** How much a cell can say. */
  says: 'all' | 'value' | 'colour'
  x: (column: number) => number
  y: (row: number) => number
  gridBottom: number
}

const layoutOf = (view: SweepView): Layout => {
  const [columns, rows] = [view.almrs.length, view.peakLrs.length]
  const width = columns > mostPairedColumns ? 1040 : 520
  const [left, top, right, apart] = [74, 10, 16, view.almrs[0] === 0 && columns > 1 ? 10 : 0]
  const cellWidth = Math.min(150, (width - left - right - apart) / Math.max(1, columns))
  const says = cellWidth >= 70 ? 'all' : cellWidth >= 44 ? 'value' : 'colour'
  const cellHeight = { all: 88, value: 46, colour: 16 }[says]
  const gridBottom = top + rows * cellHeight
  return {
    width, height: gridBottom + 116, left, top, cellWidth, cellHeight, says, gridBottom,
    x: (column) => left + column * cellWidth + (column > 0 ? apart : 0),
    y: (row) => top + (rows - 1 - row) * cellHeight,
  }
}

/**
 * One loss over the grid: ALMR from left to right with the control set apart, learning rate upwards. The chosen cell is
 * ringed, ties are ringed with dashes, what is not feasible and what lacks a seed is hatched, each in its way; every seed
 * links to its run.
 */
export const heatMap = (view: SweepView, map: HeatMap): Html => {
  const at = layoutOf(view)
  const alt = view.cells.map((c) => `${wordsOf(c)}: ${fixed(c.losses[map.of], 3)} nats per token, ${stateWords(c)}`).slice(0, 60).join('; ')
  // rings lie over their neighbours
  const cells = [...view.cells].sort((a, b) => Number(a.isTied) + 2 * Number(a.isChosen) - Number(b.isTied) - 2 * Number(b.isChosen))
  const linksAll = view.trials.length <= mostLinks
  return h`<div class="map"><svg role="group" aria-label="${alt}" viewBox="0 0 ${at.width} ${n(at.height)}" font-family="inherit" fill="var(--ink)">
<defs>${hatches(map.id)}</defs>
${axes(view, at)}
${cells.map((cell) => drawCell(view, map, at, cell, linksAll))}
${edges(view, at)}
${scale(map, at)}
</svg></div>`
}

/** Stripes and a lattice: told apart by their form, whatever the colour. */
export const hatches = (id: string): Html => h`<pattern id="${id}-infeasible" patternUnits="userSpaceOnUse" width="7" height="7" patternTransform="rotate(45)"><line x1="0" y1="0" x2="0" y2="7" stroke="var(--ink)" stroke-width="1.5" stroke-opacity="0.5"></line></pattern>
<pattern id="${id}-incomplete" patternUnits="userSpaceOnUse" width="9" height="9"><path d="M0 0L9 9M9 0L0 9" stroke="var(--soft)" stroke-width="1.1" fill="none"></path></pattern>`

const drawCell = (view: SweepView, map: HeatMap, at: Layout, cell: Cell, linksAll: boolean): Html => {
  const [x, y] = [at.x(view.almrs.indexOf(cell.almr)), at.y(view.peakLrs.indexOf(cell.peakLr))]
  const [w, ht] = [at.cellWidth, at.cellHeight]
  const value = cell.losses[map.of]
  const fill = cell.state === 'incomplete' || Number.isNaN(value) ? 'var(--blank)' : map.shades.of(value)
  const hatch = cell.state === 'infeasible' ? 'infeasible' : cell.state === 'incomplete' ? 'incomplete' : null
  const box = (inset: number): Html => h`x="${n(x + inset)}" y="${n(y + inset)}" width="${n(w - 2 * inset)}" height="${n(ht - 2 * inset)}"`
  return h`<g data-cell="${cell.almr} ${cell.peakLr}" data-state="${cell.state}">
<rect ${box(0.75)} fill="${fill}"></rect>
${hatch === null ? '' : h`<rect class="hatch" ${box(0.75)} fill="url(#${map.id}-${hatch})"></rect>`}
${at.says === 'colour' ? '' : wording(at, cell, value, map.base, fill, x + w / 2, y)}
${at.says === 'all' ? tabs(at, cell, x, y) : strips(at, linksAll ? cell.trials : cell.trials.slice(0, 1), x, y)}
${cell.isChosen ? h`<g class="ring" pointer-events="none"><rect ${box(0)} fill="none" stroke="var(--paper)" stroke-width="6"></rect><rect ${box(0)} fill="none" stroke="var(--ink)" stroke-width="${at.says === 'colour' ? 2.5 : 3.5}" rx="2"></rect></g>` : cell.isTied ? h`<rect class="tie" pointer-events="none" ${box(2)} fill="none" stroke="var(--ink)" stroke-width="2" stroke-dasharray="6 4"></rect>` : ''}
</g>
`
}

const wording = (at: Layout, cell: Cell, value: number, base: number, fill: string, x: number, y: number): Html => {
  const change = value - base
  const word = at.says === 'all' ? stateWords(cell) : ''
  const lines: [string, number, number, number][] = at.says === 'all'
    ? [[fixed(value, 3), 22, 15, 600], [Number.isNaN(change) ? '' : signed(change, 3), 38, 12, 400], [word, 54, word.length > 12 ? 10 : 11, cell.isChosen ? 700 : 400]]
    : [[fixed(value, 2), 20, 12.5, 600], [Number.isNaN(change) ? '' : signed(change, 2), 35, 10.5, 400]]
  return h`<g text-anchor="middle" pointer-events="none" paint-order="stroke" stroke="${fill}" stroke-width="4" stroke-linejoin="round">${lines.filter(([text]) => text !== '').map(([text, dy, size, weight]) => h`<text x="${n(x)}" y="${n(y + dy)}" font-size="${size}" font-weight="${weight}">${text}</text>`)}</g>`
}

/** One small tab a seed along the foot of the cell, each a link to its run. */
const tabs = (at: Layout, cell: Cell, x: number, y: number): Html => {
  const step = Math.min(30, (at.cellWidth - 12) / Math.max(1, cell.trials.length))
  const from = x + at.cellWidth / 2 - (step * cell.trials.length) / 2
  return h`${cell.trials.map((t, i) => link(t, h`<rect class="tab" x="${n(from + i * step + 1)}" y="${n(y + at.cellHeight - 24)}" width="${n(step - 2)}" height="16" rx="3" fill="var(--paper)" fill-opacity="0.85" stroke="var(--soft)" stroke-width="${t.status === 'done' ? 0.8 : 1.4}"${t.status === 'done' ? '' : h` stroke-dasharray="3 2"`}></rect>${step < 17 ? '' : h`<text x="${n(from + (i + 0.5) * step)}" y="${n(y + at.cellHeight - 12)}" font-size="10.5" text-anchor="middle" fill="${t.page === null ? 'var(--ink)' : 'var(--c1)'}">${t.status === 'done' ? short(t.point.seed) : marks[t.status]}</text>`}`))}`
}

/** Where there is no room, the cell itself is the link, a strip for each seed. */
const strips = (at: Layout, trials: readonly Trial[], x: number, y: number): Html => {
  const width = at.cellWidth / Math.max(1, trials.length)
  return h`${trials.map((t, i) => link(t, h`<rect class="tab" x="${n(x + i * width)}" y="${n(y)}" width="${n(width)}" height="${n(at.cellHeight)}" fill="transparent"></rect>`))}`
}

const link = (t: Trial, body: Html): Html => {
  const words = `trial ${t.index}: ALMR ${t.point.almr}, LR ${rate(t.point.peakLr)}, seed ${t.point.seed}, ${t.status}${Number.isNaN(t.losses.added) ? '' : `; added ${fixed(t.losses.added, 4)}, retained ${fixed(t.losses.retained, 4)} nats/token`}${t.page === null && t.status !== 'unstarted' ? `; workflow ${t.workflowId}` : ''}`
  return t.page === null ? h`<g><title>${words}</title>${body}</g>` : h`<a href="${t.page}"><title>${words}</title>${body}</a>`
}

const axes = (view: SweepView, at: Layout): Html => {
  const every = Math.max(1, Math.ceil(38 / at.cellWidth))
  const size = at.says === 'colour' ? 10.5 : 12
  const [first, last] = [at.x(0), at.x(view.almrs.length - 1) + at.cellWidth]
  return h`<g font-size="${size}">${view.peakLrs.map((lr, row) => h`<text x="${at.left - 8}" y="${n(at.y(row) + at.cellHeight / 2 + 4)}" text-anchor="end">${rate(lr)}</text>`)}
${view.almrs.map((almr, column) => (column % every === 0 ? h`<text x="${n(at.x(column) + at.cellWidth / 2)}" y="${n(at.gridBottom + 18)}" text-anchor="middle">${shortAlmr(almr)}</text>` : ''))}</g>
<g font-size="12" fill="var(--soft)"><text x="${n((first + last) / 2)}" y="${n(at.gridBottom + 38)}" text-anchor="middle">ALMR, share of the added language${view.almrs[0] === 0 ? '; 0: control' : ''}</text><text transform="translate(16 ${n((at.top + at.gridBottom) / 2)}) rotate(-90)" text-anchor="middle">${at.gridBottom - at.top < 120 ? 'peak LR' : 'peak learning rate'}</text></g>`
}

/** A heavy line along the sides of the grid that the optimum lies on. */
const edges = (view: SweepView, at: Layout): Html => {
  const firstAdded = view.almrs.findIndex((a) => a > 0)
  const [left, right] = [at.x(Math.max(0, firstAdded)) - 6, at.x(view.almrs.length - 1) + at.cellWidth + 6]
  const [top, bottom] = [at.top - 6, at.gridBottom + 6]
  const side = { 'smallest-almr': [left, top, left, bottom], 'largest-almr': [right, top, right, bottom], 'smallest-lr': [left, bottom, right, bottom], 'largest-lr': [left, top, right, top] } as const
  return h`${(view.request.verdict?.edges ?? []).map((e) => h`<line class="edge" data-edge="${e}" x1="${n(side[e][0])}" y1="${n(side[e][1])}" x2="${n(side[e][2])}" y2="${n(side[e][3])}" stroke="var(--bad)" stroke-width="4" stroke-dasharray="10 5"></line>`)}`
}

/** The colours with what they mean in numbers. */
const scale = (map: HeatMap, at: Layout): Html => {
  const { low, high, isCut } = map.shades
  const [x, y, width, steps] = [at.left, at.gridBottom + 60, at.width - at.left - 40, 60]
  if (high <= low) return h`<text x="${x}" y="${n(y + 10)}" font-size="11" fill="var(--soft)">${Number.isFinite(low) && low !== 0 ? `all measured cells: ${fixed(low, 3)} nats/token` : 'nothing was measured'}</text>`
  const place = (value: number): number => x + ((value - low) / (high - low)) * width
  const inner = map.ticks.filter((t) => t.value > low && t.value < high)
  return h`<g shape-rendering="crispEdges">${Array.from({ length: steps }, (_, i) => h`<rect x="${n(x + (i * width) / steps)}" y="${n(y)}" width="${n(width / steps + 0.5)}" height="10" fill="${map.shades.of(low + ((i + 0.5) / steps) * (high - low))}"></rect>`)}</g>
<g font-size="11" fill="var(--soft)"><text x="${x}" y="${n(y + 24)}">${fixed(low, 3)}</text><text x="${n(x + width)}" y="${n(y + 24)}" text-anchor="end">${isCut ? '≥ ' : ''}${fixed(high, 3)} nats/token</text>
${inner.map((t, i) => h`<line x1="${n(place(t.value))}" y1="${n(y - 4)}" x2="${n(place(t.value))}" y2="${n(y + 13)}" stroke="var(--ink)" stroke-width="1.6"></line><text x="${n(place(t.value))}" y="${n(i % 2 === 0 ? y - 8 : y + 38)}" text-anchor="${place(t.value) > x + width / 2 ? 'end' : 'start'}" fill="var(--ink)">${t.name} ${fixed(t.value, 3)}</text>`)}</g>`
}

/** What is the matter with a cell, in a word or two. */
export const stateWords = (cell: Cell): string => {
  if (cell.isChosen) return 'BEST'
  if (cell.isTied) return 'tie'
  if (cell.state !== 'incomplete') return cell.state
  const statuses = new Set(cell.trials.map((t) => t.status))
  return cell.measured > 0 ? `${cell.measured} of ${cell.seeds} seeds` : statuses.size === 1 ? [...statuses].join('') : 'no result'
}

export const wordsOf = ({ almr, peakLr }: { almr: number; peakLr: number }): string => `ALMR ${almr}, LR ${rate(peakLr)}`

/** In the place of a seed that has no result. */
export const marks = { parked: '‖', failed: '✕', cancelled: '–', unstarted: '○' } as const

const n = (x: number): string => String(Math.round(x * 100) / 100)
const short = (seed: number): string => (seed < 10_000 ? String(seed) : '·')
const shortAlmr = (almr: number): string => String(Math.round(almr * 1e4) / 1e4)
