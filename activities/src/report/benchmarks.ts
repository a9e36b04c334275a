import { compareBenchmark, evaluateBenchmark, type BenchmarkScore } from '@cpt/contracts/evaluate-benchmark'
import { categoryAxis, chart, ink, legend, valueAxis } from './chart.ts'
import { clip, h, type Html } from './html.ts'
import { count, fixed, percent, signed } from './numbers.ts'
import type { Section } from './page.ts'
import { figure, note, table } from './table.ts'
import { absent, resultOf, type View } from './view.ts'

interface Row {
  name: string
  base: BenchmarkScore | null
  final: BenchmarkScore | null
  paired: { difference: number; standardError: number } | null
}

/** Base against continually pre-trained model on every benchmark, paired by item. */
export const benchmarks = (view: View): Section => {
  const rows = view.request.spec.evaluation.benchmarks.map((b) => ({
    name: b.name,
    base: resultOf(view, `base/${b.name}`, evaluateBenchmark)?.score ?? null,
    final: resultOf(view, `final/${b.name}`, evaluateBenchmark)?.score ?? null,
    paired: resultOf(view, `compare/${b.name}`, compareBenchmark),
  }))
  const measured = rows.filter((r) => r.base !== null || r.final !== null)
  const shares = measured.filter((r) => any(r)?.metric !== 'nats_per_byte')
  const body =
    rows.length === 0
      ? h`<p class="absent">The run asks for no benchmarks.</p>`
      : measured.length === 0
        ? absent(view, `base/${rows[0]?.name ?? ''}`, 'benchmark scores')
        : h`
${shares.length === 0 ? '' : figure('Right answers, base and final', h`${legend([{ name: 'base', colour: 'var(--c8)', shape: 'dot' }, { name: 'final', colour: ink.accent, shape: 'dot' }, { name: 'chance', colour: 'var(--c2)', shape: 'dash' }])}${scoreChart(shares)}`, 'whiskers: one standard error')}
${table<Row>(
  [
    { head: 'Benchmark', cell: (r) => r.name },
    { head: 'Measure', cell: measure },
    { head: 'Shots', numeric: true, cell: (r) => any(r)?.shots ?? '–' },
    { head: 'Items', numeric: true, cell: (r) => count(any(r)?.items ?? 0) },
    { head: 'Chance', numeric: true, cell: (r) => ((any(r)?.chance ?? null) === null ? '–' : percent(any(r)?.chance ?? 0)) },
    { head: 'Base', numeric: true, cell: (r) => score(r.base) },
    { head: 'Final', numeric: true, cell: (r) => score(r.final) },
    { head: 'Difference', numeric: true, cell: difference },
  ],
  rows,
)}
${note('± is one standard error. Differences are paired by item, so their error is smaller than that of two separate scores. A score near chance says nothing about ability, and a difference within two standard errors nothing about change.')}`
  return { id: 'benchmarks', title: 'Benchmarks', body }
}

const any = (r: Row): BenchmarkScore | null => r.final ?? r.base
const isShare = (s: BenchmarkScore): boolean => s.metric !== 'nats_per_byte'

const measure = (r: Row): string => {
  const s = any(r)
  if (s === null) return '–'
  const name = { acc: 'accuracy', exact_match: 'exact match', nats_per_byte: 'nats per byte' }[s.metric]
  return s.higherIsBetter ? name : `${name} (lower is better)`
}

const score = (s: BenchmarkScore | null): string => (s === null ? '–' : isShare(s) ? `${fixed(s.value * 100, 1)} ± ${fixed(s.standardError * 100, 1)} %` : `${fixed(s.value)} ± ${fixed(s.standardError)}`)

const difference = (r: Row): Html | string => {
  const s = any(r)
  if (r.paired === null || s === null) return '–'
  const { difference: d, standardError: se } = r.paired
  const text = isShare(s) ? `${signed(d * 100, 1)} ± ${fixed(se * 100, 1)}` : `${signed(d)} ± ${fixed(se)}`
  if (se === 0 || Math.abs(d) <= 2 * se) return text
  return h`<span class="${d > 0 === s.higherIsBetter ? 'good' : 'bad'}">${text}</span>`
}

const scoreChart = (rows: readonly Row[]): Html => {
  const series = (of: (r: Row) => BenchmarkScore | null, colour: string, offset: number) => [
    { type: 'scatter', symbolSize: 9, symbolOffset: [0, offset], itemStyle: { color: colour }, data: rows.flatMap((r, i) => (of(r) === null ? [] : [[(of(r)?.value ?? 0) * 100, i]])) },
    { type: 'custom', renderItem: whisker(colour, offset), data: rows.flatMap((r, i) => ends(of(r), i)) },
  ]
  return chart('benchmarks', rows.map((r) => `${r.name}: base ${score(r.base)}, final ${score(r.final)}`).join('; '), 48 + rows.length * 38, {
    grid: { left: 220, right: 30, top: 6, bottom: 42 },
    xAxis: valueAxis('right answers (%)', { min: 0, max: Math.min(100, Math.ceil(Math.max(10, ...rows.flatMap((r) => [...ends(r.base, 0), ...ends(r.final, 0)].map((e) => e[2])).map((x) => x * 1.05)) / 10) * 10) }),
    yAxis: categoryAxis(rows.map((r) => clip(r.name, 32)), { inverse: true, axisLine: { show: false }, splitLine: { show: true, lineStyle: { color: ink.line } } }),
    series: [
      { type: 'custom', renderItem: chanceTick, data: rows.flatMap((r, i) => ((any(r)?.chance ?? null) === null ? [] : [[(any(r)?.chance ?? 0) * 100, i]])) },
      ...series((r) => r.base, 'var(--c8)', -6),
      ...series((r) => r.final, ink.accent, 6),
    ],
  })
}

/** [low, row, high] of one standard error around a score, kept on the axis. */
const ends = (s: BenchmarkScore | null, row: number): [number, number, number][] => (s === null ? [] : [[Math.max(0, s.value - s.standardError) * 100, row, Math.min(1, s.value + s.standardError) * 100]])

interface Api {
  value(dimension: number): number
  coord(at: [number, number]): [number, number]
}

const whisker =
  (colour: string, offset: number) =>
  (_: unknown, api: Api): object => {
    const [x1, y] = api.coord([api.value(0), api.value(1)])
    const [x2] = api.coord([api.value(2), api.value(1)])
    return { type: 'line', shape: { x1, x2, y1: y + offset, y2: y + offset }, style: { stroke: colour, lineWidth: 2 } }
  }

const chanceTick = (_: unknown, api: Api): object => {
  const [x, y] = api.coord([api.value(0), api.value(1)])
  return { type: 'line', shape: { x1: x, x2: x, y1: y - 14, y2: y + 14 }, style: { stroke: 'var(--c2)', lineWidth: 2, lineDash: [3, 2] } }
}
