import { comparePerplexity, evaluatePerplexity, type PerplexityChange, type StratumLoss } from '@cpt/contracts/evaluate-perplexity'
import type { Stratum } from '@cpt/contracts/hold-out'
import { categoryAxis, chart, colour, ink, legend, valueAxis } from './chart.ts'
import { endLabels } from './end-labels.ts'
import { clip, h, type Html } from './html.ts'
import { count, fixed, ppl, plusMinus, signed } from './numbers.ts'
import type { Section } from './page.ts'
import { groupColour, groupOf, groupTitle, stratumKey, stratumName, sum } from './strata.ts'
import { changes, groupName } from './summary.ts'
import { details, figure, note, table, type Column } from './table.ts'
import { absent, resultOf, type Round, type View } from './view.ts'

/** A model at a point of the run, measured on the frozen sets. */
interface Point {
  label: string
  strata: readonly StratumLoss[]
}

/** Loss on the frozen validation sets, from the base over every round to the end. */
export const perplexity = (view: View): Section => {
  const points = pointsOf(view)
  const groups = order([...new Set(points.flatMap((p) => p.strata.map(group)))], view.request.spec.targetLanguage)
  const body =
    points.length === 0
      ? absent(view, 'base/perplexity', 'validation loss')
      : h`
${overview(view)}
${figure('Change of validation loss since the base', h`${legend(groups.map((g, i) => ({ name: groupName(view, g), colour: lineColour(view, g, i), shape: 'line' })))}${groupChart(view, points, groups)}`)}
${groups.map((g) => oneGroup(view, points, g))}
${points[0] === undefined ? '' : note(`A model is measured on ${count(sum(points[0].strata.map((s) => s.tokens)))} tokens of ${count(sum(points[0].strata.map((s) => s.docs)))} documents.`)}
${note(`Each set was frozen before the first round, is never trained on, and keeps its near-duplicates out of the plan. Differences are paired by document, their standard errors from a bootstrap over documents. Nats per byte compare across tokenizers, nats per token do not.${hasOtherTokenizer(view) ? ' This run has another tokenizer than its base: what was trained is compared per byte, and told for as many bytes as a token of the base has. A token here is one of the base’s throughout.' : ''}`)}`
  return { id: 'perplexity', title: 'Perplexity by language and topic', body }
}

const group = (s: StratumLoss | PerplexityChange): string => (s.set === 'retention' ? 'retention' : groupOf(s))
const order = (groups: string[], target: string): string[] => {
  const rank = (g: string): number => (g === target ? 0 : g === 'retention' ? 3 : g === 'synthetic' ? 2 : 1)
  return groups.sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1))
}
const lineColour = (view: View, g: string, i: number): string => (['retention', 'synthetic', 'en', view.request.spec.targetLanguage].includes(g) ? groupColour(g, view.request.spec.targetLanguage) : colour(i + 4))

const pointsOf = (view: View): Point[] => {
  const base = resultOf(view, 'base/perplexity', evaluatePerplexity)?.measurement.strata ?? null
  const trained = view.rounds.flatMap((r) => (r.train === null ? [] : [{ label: r.label, strata: r.train.measurement.strata }, ...bestOf(view, r)]))
  if (!hasOtherTokenizer(view)) return [...(base === null ? [] : [{ label: 'base', strata: base }]), ...trained]
  // a loss per token of another tokenizer than the base's has nothing to stand beside
  return base === null ? [] : [{ label: 'base', strata: base }, ...trained.map(({ label, strata }) => ({ label, strata: inTokensOf(base, strata) }))]
}

/** The model of the round's best step, where it was taken in place of the last one's. */
const bestOf = (view: View, round: Round): Point[] => {
  const best = resultOf(view, round.trainKey.replace(/train$/, 'best-perplexity'), evaluatePerplexity)
  return best === null ? [] : [{ label: `${round.label}, best`, strata: best.measurement.strata }]
}

const hasOtherTokenizer = (view: View): boolean => view.request.spec.base.tokenizer !== undefined

/** Losses per byte, for as many bytes as a token has in `base`, with its numbers of tokens. */
const inTokensOf = (base: readonly StratumLoss[], strata: readonly StratumLoss[]): StratumLoss[] =>
  strata.flatMap((s) => {
    const same = base.find((b) => group(b) === group(s) && stratumKey(stratumOf(b)) === stratumKey(stratumOf(s)))
    return same === undefined ? [] : [{ ...s, tokens: same.tokens, nllPerToken: (s.nllPerByte * same.bytes) / Math.max(1, same.tokens) }]
  })

const stratumOf = ({ language, kind, topic }: StratumLoss): Stratum => ({ language, kind, topic })

/** Token-weighted over strata: what the whole group costs. */
const mean = (strata: readonly StratumLoss[]): number => sum(strata.map((s) => s.nllPerToken * s.tokens)) / Math.max(1, sum(strata.map((s) => s.tokens)))

const overview = (view: View): Html => {
  const rows = changes(view)
  const spec = view.request.spec.gate
  if (rows === null) return absent(view, 'final/compare-perplexity', 'comparison of base and final model')
  return table(
    [
      { head: 'Text', cell: (g) => groupName(view, g.group) },
      { head: 'Documents', numeric: true, cell: (g) => count(g.docs) },
      { head: 'Base, nats/token', numeric: true, cell: (g) => fixed(g.nllBefore) },
      { head: 'Final', numeric: true, cell: (g) => fixed(g.nllAfter) },
      { head: 'Change', numeric: true, cell: (g) => (g.group === 'retention' && g.deltaNll > 0 && g.deltaNll + spec.z * g.seNll <= spec.retentionToleranceNats ? plusMinus(g.deltaNll, g.seNll) : toned(g.deltaNll, g.seNll, plusMinus(g.deltaNll, g.seNll))) },
      { head: 'Change, nats/byte', numeric: true, cell: (g) => signed(g.deltaNllPerByte, 4) },
      { head: 'Perplexity', numeric: true, cell: (g) => `${ppl(Math.exp(g.nllBefore))} → ${ppl(Math.exp(g.nllAfter))}` },
    ],
    [...rows].sort((a, b) => order([a.group, b.group], view.request.spec.targetLanguage).indexOf(a.group) - order([a.group, b.group], view.request.spec.targetLanguage).indexOf(b.group)),
  )
}

/** Coloured only where the change is more than two standard errors. */
const toned = (delta: number, se: number, text: string): Html | string => (Math.abs(delta) <= 2 * se || !Number.isFinite(delta) ? text : h`<span class="${delta < 0 ? 'good' : 'bad'}">${text}</span>`)

const groupChart = (view: View, points: readonly Point[], groups: readonly string[]): Html =>
  deltaChart(
    'perplexity',
    points,
    groups.map((g, i) => ({ name: groupName(view, g), colour: lineColour(view, g, i), values: points.map((p) => mean(p.strata.filter((s) => group(s) === g))) })),
    300,
  )

interface Line {
  name: string
  colour: string
  values: readonly number[]
}

/** Change since the first point, in nats per token. */
const deltaChart = (id: string, points: readonly Point[], lines: readonly Line[], heightPx: number): Html => {
  const [top, bottom] = [14, 44]
  const delta = (l: Line, i: number): number => (l.values[i] ?? Number.NaN) - (l.values[0] ?? Number.NaN)
  const last = points.length - 1
  return chart(id, lines.map((l) => `${l.name}: ${l.values.map((v) => fixed(v)).join(' → ')}`).join('; '), heightPx, {
    grid: { left: 70, right: 330, top, bottom },
    xAxis: categoryAxis(points.map((p) => clip(p.label, 18)), { boundaryGap: points.length === 1, axisLine: { onZero: false, lineStyle: { color: ink.line } }, axisLabel: { color: ink.text, hideOverlap: true } }),
    yAxis: valueAxis('change (nats/token)', { nameGap: 48, scale: true }),
    series: [
      ...lines.map((l, k) => ({
        type: 'line',
        symbol: 'circle',
        symbolSize: 5,
        lineStyle: { color: l.colour, width: 1.8 },
        itemStyle: { color: l.colour },
        data: l.values.map((_, i) => (Number.isFinite(delta(l, i)) ? Math.round(delta(l, i) * 1e5) / 1e5 : '-')),
        ...(k === 0 ? { markLine: { silent: true, symbol: 'none', label: { show: false }, lineStyle: { color: ink.soft, type: 'solid', width: 1 }, data: [{ yAxis: 0 }] } } : {}),
      })),
      endLabels(lines.map((l) => ({ name: `${signed(delta(l, last), 2)}  ${l.name}`, value: delta(l, last), colour: l.colour })), last, top, heightPx - bottom - 8),
    ],
  })
}

const oneGroup = (view: View, points: readonly Point[], g: string): Html => {
  const compared = resultOf(view, 'final/compare-perplexity', comparePerplexity)?.strata.filter((s) => group(s) === g) ?? []
  const strata = new Map(points.flatMap((p) => p.strata.filter((s) => group(s) === g)).map((s) => [stratumKey({ language: s.language, kind: s.kind, topic: s.topic }), s]))
  const rows = [...strata].map(([key, s]) => ({ s, at: points.map((p) => p.strata.find((x) => group(x) === g && stratumKey({ language: x.language, kind: x.kind, topic: x.topic }) === key)), change: compared.find((c) => stratumKey({ language: c.language, kind: c.kind, topic: c.topic }) === key) })).sort((a, b) => (a.change?.deltaNll ?? 0) - (b.change?.deltaNll ?? 0))
  type Row = (typeof rows)[number]
  const first = (r: Row) => r.at[0]
  const last = (r: Row) => r.at.at(-1)
  const columns: Column<Row>[] = [
    { head: 'Stratum', cell: (r) => stratumName(r.s) },
    { head: 'Documents', numeric: true, cell: (r) => count(r.s.docs) },
    { head: 'Base, nats/token', numeric: true, cell: (r) => fixed(first(r)?.nllPerToken) },
    { head: 'Final', numeric: true, cell: (r) => fixed(last(r)?.nllPerToken) },
    { head: 'Change', numeric: true, cell: (r) => (r.change === undefined ? '–' : toned(r.change.deltaNll, r.change.seNll, plusMinus(r.change.deltaNll, r.change.seNll))) },
    { head: 'Base, nats/byte', numeric: true, cell: (r) => fixed(first(r)?.nllPerByte) },
    { head: 'Final', numeric: true, cell: (r) => fixed(last(r)?.nllPerByte) },
    { head: 'Change', numeric: true, cell: (r) => signed((last(r)?.nllPerByte ?? Number.NaN) - (first(r)?.nllPerByte ?? Number.NaN)) },
    { head: 'Perplexity', numeric: true, cell: (r) => `${ppl(Math.exp(first(r)?.nllPerToken ?? Number.NaN))} → ${ppl(Math.exp(last(r)?.nllPerToken ?? Number.NaN))}` },
  ]
  const name = g === 'retention' ? groupName(view, g) : groupTitle(g)
  return h`<h3>${name.charAt(0).toUpperCase()}${name.slice(1)}</h3>
${rows.length < 2 ? '' : figure('Change of loss since the base, by stratum', deltaChart(`perplexity-${g}`, points, rows.map((r, i) => ({ name: stratumName(r.s), colour: colour(i), values: r.at.map((x) => x?.nllPerToken ?? Number.NaN) })), Math.max(230, 80 + rows.length * 17)))}
${table(columns, rows)}
${points.length < 3 ? '' : details('Nats per token after every round', table<Row>([{ head: 'Stratum', cell: (r) => stratumName(r.s) }, ...points.map((p, i) => ({ head: p.label, numeric: true, cell: (r: Row) => fixed(r.at[i]?.nllPerToken) }))], rows))}`
}
