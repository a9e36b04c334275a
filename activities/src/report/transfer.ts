import { Approval, ConfirmationVerdict, TransferOverride, type ConfirmedPoint } from '@cpt/contracts/model-transfer'
import { z } from 'zod'
import { categoryAxis, chart, ink, legend, valueAxis } from './chart.ts'
import { h, type Html } from './html.ts'
import { rate, signed } from './numbers.ts'
import type { Section } from './page.ts'
import { badge, figure, note, table } from './table.ts'
import type { View } from './view.ts'

const Asked = z.object({ override: TransferOverride.nullable() })

/** Where a transfer led to this run: what the proxy predicted, what the target showed, who approved. null: none did. */
export const transfer = (view: View): Section | null => {
  const ledHere = view.source.decisions.filter((d) => d.kind === 'lineage')
  if (ledHere.length === 0) return null
  const confirmation = ledHere.flatMap((d) => ConfirmationVerdict.safeParse(d.output).data ?? []).at(0)
  const approved = ledHere.flatMap((d) => {
    const approval = Approval.safeParse(d.output).data
    return approval === undefined ? [] : [{ approval, override: Asked.safeParse(d.inputs).data?.override ?? null }]
  }).at(0)
  const body = h`
${confirmation === undefined ? h`<p class="absent">No confirmation to show: its record was not found, or is not the one that the lineage names.</p>` : confirmed(confirmation)}
${approved === undefined ? h`<p class="absent">No approval to show: its record was not found, or is not the one that the lineage names.</p>` : answered(approved)}`
  return { id: 'transfer', title: 'Transfer from the proxy', body }
}

const confirmed = ({ outcome, unit, points, words }: ConfirmationVerdict): Html => h`
<p>The confirmation on the target ${badge(outcome === 'holds' ? 'good' : outcome === 'refuted' ? 'bad' : 'warn', outcome)}</p>
${words.map((w) => h`<p>${w}</p>`)}
${figure('Predicted by the proxy, found on the target', h`${legend([{ name: 'proxy', colour: 'var(--c8)', shape: 'dot' }, { name: 'target', colour: ink.accent, shape: 'dot' }])}${pairs(points, unit)}`, `change against the own base, ${unit}`)}
${table<ConfirmedPoint>(
  [
    { head: 'Point', cell: ({ role }) => roles[role] },
    { head: 'ALMR', numeric: true, cell: (p) => p.almr },
    { head: 'Peak LR, proxy', numeric: true, cell: (p) => rate(p.proxyLr) },
    { head: 'target', numeric: true, cell: (p) => rate(p.targetLr) },
    { head: 'Added, proxy', numeric: true, cell: (p) => changeOf(p.predicted?.added) },
    { head: 'target', numeric: true, cell: (p) => changeOf(p.found?.added) },
    { head: 'Retained, proxy', numeric: true, cell: (p) => changeOf(p.predicted?.retained) },
    { head: 'target', numeric: true, cell: (p) => changeOf(p.found?.retained) },
    { head: 'Feasible', cell: ({ feasible }) => (feasible === null ? '–' : feasible ? badge('good', 'yes') : badge('bad', 'no')) },
  ],
  points,
)}
${note('What the target found comes from a short run and is the mean over its seeds. A dash: not measured, or not predicted.')}`

const answered = ({ approval: { approved, by, reason }, override }: { approval: Approval; override: TransferOverride | null }): Html => h`
<p>${approved ? 'Approved' : 'Refused'} by ${by}${reason === '' ? '' : h`: ${reason}`}.</p>
${override === null ? '' : h`<p class="warn"><strong>The evidence was overridden</strong> by ${override.by}, who took ALMR ${override.almr} at peak learning rate ${rate(override.peakLr)} of the proxy: ${override.reason}.</p>`}`

const roles: Record<ConfirmedPoint['role'], string> = { chosen: 'chosen', 'less-almr': 'less ALMR', 'more-almr': 'more ALMR', 'lower-lr': 'lower LR', 'higher-lr': 'higher LR' }
const changeOf = (change: number | undefined): string => (change === undefined ? '–' : signed(change, 4))

interface Api {
  value(dimension: number): number
  coord(at: [number, number]): [number, number]
}

/** Two panels, added and retained: each point's prediction joined to what was found. */
const pairs = (points: readonly ConfirmedPoint[], unit: string): Html => {
  const panels = (['added', 'retained'] as const).map((of, i) => {
    const dots = (side: 'predicted' | 'found') => points.flatMap((p, row) => (p[side] === null ? [] : [[p[side][of], row]]))
    const joined = points.flatMap((p, row) => (p.predicted === null || p.found === null ? [] : [[p.predicted[of], row, p.found[of]]]))
    const at = { xAxisIndex: i, yAxisIndex: i }
    return {
      grid: { left: i === 0 ? 150 : 625, width: 385, top: 10, bottom: 46 },
      xAxis: valueAxis(`${of} language (${unit})`, { gridIndex: i, scale: true, splitNumber: 4, axisLabel: { color: ink.soft, formatter: (v: number) => signed(v, 3) } }),
      yAxis: categoryAxis(points.map((p) => `${roles[p.role]}, ${p.almr}`), { gridIndex: i, inverse: true, axisLabel: { show: i === 0, color: ink.text, fontSize: 12, interval: 0 }, splitLine: { show: true, lineStyle: { color: ink.line } } }),
      series: [
        { type: 'custom', ...at, silent: true, data: joined, renderItem: (_: unknown, api: Api) => join(api) },
        { type: 'scatter', ...at, symbolSize: 11, itemStyle: { color: ink.paper, borderColor: 'var(--c8)', borderWidth: 2 }, data: dots('predicted') },
        { type: 'scatter', ...at, symbolSize: 11, itemStyle: { color: ink.accent }, data: dots('found') },
      ],
    }
  })
  const words = points.map((p) => `${roles[p.role]}: added ${changeOf(p.predicted?.added)} predicted, ${changeOf(p.found?.added)} found; retained ${changeOf(p.predicted?.retained)} predicted, ${changeOf(p.found?.retained)} found`)
  return chart('transfer', words.join('; '), 70 + points.length * 38, { grid: panels.map((p) => p.grid), xAxis: panels.map((p) => p.xAxis), yAxis: panels.map((p) => p.yAxis), series: panels.flatMap((p) => p.series) })
}

const join = (api: Api): object => {
  const [x1, y] = api.coord([api.value(0), api.value(1)])
  const [x2] = api.coord([api.value(2), api.value(1)])
  return { type: 'line', shape: { x1, x2, y1: y, y2: y }, style: { stroke: ink.soft, lineWidth: 1.6 } }
}
