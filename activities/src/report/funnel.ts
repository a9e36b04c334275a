import { decontaminate } from '@cpt/contracts/decontaminate'
import { dedup } from '@cpt/contracts/dedup'
import { filter } from '@cpt/contracts/filter'
import { findPersonalData } from '@cpt/contracts/find-personal-data'
import { holdOut } from '@cpt/contracts/hold-out'
import { ingest } from '@cpt/contracts/ingest'
import { scoreQuality } from '@cpt/contracts/score-quality'
import { tokenize } from '@cpt/contracts/tokenize'
import { categoryAxis, chart, ink, legend, valueAxis } from './chart.ts'
import { funnelBySource } from './funnel-by-source.ts'
import { clip, h, type Html } from './html.ts'
import { bytes, count, percent, plural } from './numbers.ts'
import type { Section } from './page.ts'
import { groupTitle, sum } from './strata.ts'
import { absent, resultOf, type View } from './view.ts'
import { details, figure, note, table } from './table.ts'

interface Step {
  key: string
  title: string
  /** Documents after the step, and what it took away, by reason. */
  kept: number
  taken: number
  reasons: [string, number][]
  byLanguage: Record<string, number>
}

/** The way of the lines: what came in, what each stage dropped and why, what was left. */
export const funnel = (view: View): Section => {
  const raw = resultOf(view, 'ingest', ingest)?.counts
  const { off = [] } = view.request.spec.corpus
  const body = raw === undefined ? absent(view, 'ingest', 'data funnel') : h`${balance(raw)}${off.length === 0 ? '' : h`<p>Off in the input: ${off.join(', ')}.</p>`}${steps(view, raw)}`
  return { id: 'funnel', title: 'Data funnel', body }
}

type Raw = { lines: number; kept: number; quarantined: number; keptBytes: number; byReason: Record<string, number>; byLanguage: Record<string, number> }

const balance = (c: Raw): Html => h`<p>${plural(c.lines, 'line')} in = ${count(c.kept)} kept + ${count(c.quarantined)} quarantined as unreadable${
  c.lines === c.kept + c.quarantined ? '' : h` <strong class="bad">(does not add up: ${count(c.lines - c.kept - c.quarantined)} lines are unaccounted for)</strong>`
}. The kept text has ${bytes(c.keptBytes)}.</p>`

const steps = (view: View, raw: Raw): Html => {
  const made: Step[] = [
    { key: 'lines', title: 'lines read', kept: raw.lines, taken: 0, reasons: [], byLanguage: {} },
    { key: 'ingest', title: 'ingest', kept: raw.kept, taken: raw.quarantined, reasons: entries(raw.byReason), byLanguage: raw.byLanguage },
    ...[
      ['filter', resultOf(view, 'filter', filter)?.counts] as const,
      ['dedup', resultOf(view, 'dedup', dedup)?.counts] as const,
      ['decontaminate', resultOf(view, 'decontaminate', decontaminate)?.counts] as const,
      ['score-quality', resultOf(view, 'score-quality', scoreQuality)?.counts] as const,
      ['hold-out', resultOf(view, 'hold-out', holdOut)?.counts] as const,
    ].flatMap(([key, c]) => (c === undefined ? [] : [{ key, title: key, kept: c.kept, taken: c.docs - c.kept, reasons: entries(c.byReason), byLanguage: c.byLanguage }])),
  ]
  const left = resultOf(view, 'tokenize', tokenize)?.counts
  return h`
${figure('Documents left after each stage', h`${legend([{ name: 'left', colour: ink.accent }, { name: 'taken out by the stage', colour: 'var(--c2)' }])}${funnelChart(made)}`)}
${left === undefined ? absent(view, 'tokenize', 'count of tokens') : h`<p>Left to train on: ${plural(left.docs, 'document')}, ${plural(left.tokens, 'token')}, ${bytes(left.bytes)} of text (${Object.entries(left.byLanguage).map(([l, n]) => `${groupTitle(l)} ${count(n)}`).join(', ')}).</p>`}
${personalData(view)}
${figure('What was dropped, and why', reasonChart(made), 'documents (ingest: lines); the validation sets are not drops')}
${details('Every reason in numbers', reasonTable(made.slice(1), raw.lines))}
<h3>By language</h3>
${languageTable(made.slice(1))}
<h3>By source</h3>
${funnelBySource(view)}
${note('Held-out documents are not lost: they are the frozen validation sets, with their near-duplicates and all sources that serve validation only, and are never trained on.')}`
}

/** Nothing where the run takes none out. */
const personalData = (view: View): Html => {
  const found = resultOf(view, 'find-personal-data', findPersonalData)?.counts
  if (found === undefined) return h``
  const kinds = Object.keys(found.found)
  return h`<p>Personal data in ${count(found.withAny)} of ${plural(found.docs, 'document')} looked at; models read placeholders in its place.</p>
${kinds.length === 0 ? h`` : table(
    [{ head: 'Personal data', cell: ([language]) => groupTitle(language) }, ...kinds.map((kind) => ({ head: kind, numeric: true, cell: ([, n]: [string, Record<string, number>]) => count(n[kind] ?? 0) }))],
    Object.entries(found.byLanguage),
  )}`
}

const funnelChart = (made: readonly Step[]): Html =>
  chart('funnel', `Documents after ${made.map((s) => `${s.title}: ${s.kept}`).join(', ')}`, 46 + made.length * 34, {
    grid: { left: 110, right: 150, top: 4, bottom: 40 },
    xAxis: valueAxis('documents'),
    yAxis: categoryAxis(made.map((s) => s.title), { inverse: true, axisLine: { show: false } }),
    series: [
      { type: 'bar', stack: 'all', barWidth: 18, itemStyle: { color: ink.accent }, data: made.map((s) => s.kept) },
      {
        type: 'bar',
        stack: 'all',
        itemStyle: { color: 'var(--c2)' },
        label: { show: true, position: 'right', color: ink.text, fontSize: 12, formatter: (p: { dataIndex: number }) => describe(made[p.dataIndex]) },
        data: made.map((s) => s.taken),
      },
    ],
  })

const describe = (s: Step | undefined): string => (s === undefined ? '' : `${count(s.kept)}${s.taken === 0 ? '' : `  (−${count(s.taken)})`}`)

const reasonChart = (made: readonly Step[]): Html => {
  const rows = made.filter((s) => s.key !== 'hold-out').flatMap((s) => s.reasons.map(([reason, n]) => ({ label: clip(`${s.title}: ${reason}`, 44), n }))).filter((r) => r.n > 0).slice(0, 40)
  if (rows.length === 0) return h`<p class="absent">Nothing was taken out.</p>`
  return chart('reasons', `Documents taken out: ${rows.map((r) => `${r.label} ${r.n}`).join(', ')}`, 46 + rows.length * 23, {
    grid: { left: 290, right: 60, top: 4, bottom: 40 },
    xAxis: valueAxis('documents', { minInterval: 1 }),
    yAxis: categoryAxis(rows.map((r) => r.label), { inverse: true, axisLine: { show: false } }),
    series: [{ type: 'bar', barWidth: 13, itemStyle: { color: 'var(--c2)' }, label: { show: true, position: 'right', color: ink.text, formatter: (p: { value: number }) => count(p.value) }, data: rows.map((r) => r.n) }],
  })
}

const reasonTable = (made: readonly Step[], lines: number): Html => {
  const rows = made.flatMap((s) => (s.reasons.length === 0 ? [{ step: s, reason: 'nothing taken out', n: 0 }] : s.reasons.map(([reason, n]) => ({ step: s, reason, n }))))
  return table(
    [
      { head: 'Stage', cell: (r) => r.step.title },
      { head: 'Reason', cell: (r) => r.reason },
      { head: 'Documents', numeric: true, cell: (r) => count(r.n) },
      { head: 'Of all lines', numeric: true, cell: (r) => percent(r.n / Math.max(1, lines), 2) },
    ],
    rows,
  )
}

const languageTable = (made: readonly Step[]): Html => {
  const languages = [...new Set(made.flatMap((s) => Object.keys(s.byLanguage)))].sort()
  return table(
    [
      { head: 'Left after', cell: (s: Step) => s.title },
      ...languages.map((l) => ({ head: groupTitle(l), numeric: true, cell: (s: Step) => count(s.byLanguage[l] ?? 0) })),
      { head: 'All', numeric: true, cell: (s: Step) => count(sum(Object.values(s.byLanguage))) },
    ],
    made,
  )
}

const entries = (counts: Readonly<Record<string, number>>): [string, number][] => Object.entries(counts).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
