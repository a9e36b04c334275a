import { countFunnel } from '@cpt/contracts/count-funnel'
import { z } from 'zod'
import { categoryAxis, chart, colour, ink, legend, valueAxis } from './chart.ts'
import { clip, h, type Html } from './html.ts'
import { count, percent } from './numbers.ts'
import { groupTitle, sum } from './strata.ts'
import { details, figure, table } from './table.ts'
import { absent, recordOf, requestOf, resultOf, type View } from './view.ts'

/** The documents of one source in one language, or of a whole source. */
interface Row {
  source: string
  language: string
  docs: number
  /** Documents after each step, in the order of the steps. */
  left: number[]
  tokens: number
}

const mostBars = 40

/** What each step left of every source and language, and why it took what it took. */
export const funnelBySource = (view: View): Html => {
  const counted = resultOf(view, 'count-funnel', countFunnel)?.counts
  if (counted === undefined) return absent(view, 'count-funnel', 'way of each source')
  const steps = stepsOf(view)
  const rows = Object.entries(counted.bySource).flatMap(([source, of]) =>
    Object.entries(of).map(([language, line]): Row => ({ source, language, docs: line.docs, left: steps.map((s) => line.left[s] ?? 0), tokens: line.tokens })),
  )
  const sources = Object.keys(counted.bySource).map((source) => together(rows.filter((r) => r.source === source))).sort((a, b) => b.docs - a.docs || (a.source < b.source ? -1 : 1))
  const lines = linesOf(view)
  const ordered = sources.flatMap((s) => rows.filter((r) => r.source === s.source).sort((a, b) => b.docs - a.docs))
  return h`
${figure('What became of the documents of each source', h`${legend([{ name: 'left to train on', colour: ink.accent }, ...steps.map((s, i) => ({ name: s, colour: colour(i + 1) }))])}${sourceChart(sources.slice(0, mostBars), steps)}`, sources.length > mostBars ? `the ${mostBars} largest of ${count(sources.length)}; the table has all` : 'shares of the documents that could be read')}
${table<Row>(
  [
    { head: 'Source', cell: (r) => r.source },
    { head: 'Language', cell: (r) => groupTitle(r.language) },
    { head: 'Read', numeric: true, cell: (r) => count(r.docs) },
    ...steps.map((s, i) => ({ head: `After ${s}`, numeric: true, cell: (r: Row) => count(r.left[i] ?? 0) })),
    { head: 'Left', numeric: true, cell: (r) => percent((r.left.at(-1) ?? r.docs) / Math.max(1, r.docs)) },
    { head: 'Tokens', numeric: true, cell: (r) => count(r.tokens) },
  ],
  ordered,
  { foot: footOf(rows, steps.length) },
)}
${lines.length > 0 ? details('Lines that could not be read, by source', quarantineTable(lines)) : ''}
${details('Why, by source', whyTable(counted.taken, new Map(sources.map((s) => [s.source, s.docs]))))}`
}

/** The steps in their order, which counts by name have lost. */
const stepsOf = (view: View): string[] => Steps.safeParse(requestOf(view, 'count-funnel')).data?.steps ?? []
const Steps = z.object({ steps: z.array(z.string()) })

const together = (rows: readonly Row[]): Row => ({
  source: rows[0]?.source ?? '',
  language: '',
  docs: sum(rows.map((r) => r.docs)),
  left: (rows[0]?.left ?? []).map((_, i) => sum(rows.map((r) => r.left[i] ?? 0))),
  tokens: sum(rows.map((r) => r.tokens)),
})

const footOf = (rows: readonly Row[], steps: number): Html => {
  const all = together(rows)
  const cells = [count(all.docs), ...Array.from({ length: steps }, (_, i) => count(all.left[i] ?? 0)), percent((all.left.at(-1) ?? all.docs) / Math.max(1, all.docs)), count(all.tokens)]
  return h`<tr><td>All</td><td></td>${cells.map((c) => h`<td class="num">${c}</td>`)}</tr>`
}

const sourceChart = (sources: readonly Row[], steps: readonly string[]): Html => {
  /** Documents that step i took. */
  const taken = (r: Row, i: number): number => (i === 0 ? r.docs : (r.left[i - 1] ?? 0)) - (r.left[i] ?? 0)
  const share = (n: number, r: Row): number => Math.round((n / Math.max(1, r.docs)) * 1e5) / 1e3
  const series = [
    { name: 'left', colour: ink.accent, of: (r: Row) => r.left.at(-1) ?? r.docs },
    ...steps.map((name, i) => ({ name, colour: colour(i + 1), of: (r: Row) => taken(r, i) })),
  ]
  return chart('sources', sources.map((r) => `${r.source}: ${series.map((s) => `${s.name} ${percent(s.of(r) / Math.max(1, r.docs))}`).join(', ')}`).join('; '), 48 + sources.length * 28, {
    grid: { left: 220, right: 90, top: 4, bottom: 42 },
    xAxis: valueAxis('share of the source’s documents (%)', { max: 100 }),
    yAxis: categoryAxis(sources.map((r) => clip(r.source, 32)), { inverse: true, axisLine: { show: false } }),
    series: series.map((s, at) => ({
      type: 'bar',
      stack: 'all',
      barWidth: 16,
      itemStyle: { color: s.colour, borderColor: ink.paper, borderWidth: 0.5 },
      ...(at === series.length - 1 ? { label: { show: true, position: 'right', color: ink.text, fontSize: 12, formatter: (p: { dataIndex: number }) => count(sources[p.dataIndex]?.docs ?? 0) } } : {}),
      data: sources.map((r) => share(s.of(r), r)),
    })),
  })
}

const whyTable = (taken: Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, number>>>>>>, docs: ReadonlyMap<string, number>): Html => {
  const rows = Object.entries(taken).flatMap(([source, steps]) => Object.entries(steps).flatMap(([step, reasons]) => Object.entries(reasons).map(([reason, n]) => ({ source, step, reason, n }))))
  if (rows.length === 0) return h`<p class="absent">Nothing was taken out.</p>`
  return table(
    [
      { head: 'Source', cell: (r) => r.source },
      { head: 'Stage', cell: (r) => r.step },
      { head: 'Reason', cell: (r) => r.reason },
      { head: 'Documents', numeric: true, cell: (r) => count(r.n) },
      { head: 'Of the source', numeric: true, cell: (r) => percent(r.n / Math.max(1, docs.get(r.source) ?? 0), 2) },
    ],
    rows.sort((a, b) => b.n - a.n || (a.source < b.source ? -1 : 1)),
  )
}

type Lines = { source: string; lines: number; quarantined: number }

/** Lines in and lines quarantined of each source, from the commits of ingest's units. */
const linesOf = (view: View): Lines[] => [...(view.source.sourceLines.get(recordOf(view, 'ingest')?.fingerprint ?? '') ?? [])].map(([source, counts]) => ({ source, ...counts })).sort((a, b) => b.quarantined - a.quarantined || b.lines - a.lines)

const quarantineTable = (lines: readonly Lines[]): Html =>
  table<Lines>(
    [
      { head: 'Source', cell: (l) => l.source },
      { head: 'Lines', numeric: true, cell: (l) => count(l.lines) },
      { head: 'Quarantined', numeric: true, cell: (l) => count(l.quarantined) },
      { head: 'Share', numeric: true, cell: (l) => percent(l.quarantined / Math.max(1, l.lines), 2) },
    ],
    lines,
  )
