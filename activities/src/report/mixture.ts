import { z } from 'zod'
import type { PlannedStratum } from '@cpt/contracts/sample-mixture'
import { categoryAxis, chart, ink, legend, valueAxis } from './chart.ts'
import { clip, h, type Html } from './html.ts'
import { count, fixed, percent, plural, signed } from './numbers.ts'
import type { Section } from './page.ts'
import { groupColour, groupOf, groupsOf, groupTitle, stratumName, sum } from './strata.ts'
import { badge, details, figure, note, table } from './table.ts'
import { absent, type Round, type View } from './view.ts'

type Planned = z.output<typeof PlannedStratum>

interface Segment {
  group: string
  kind: string
  opacity: number
  byRound: { ratio: number; tokens: number }[]
}

/** What each round was made of: planned shares, and what was drawn. */
export const mixture = (view: View): Section => {
  const rounds = view.rounds.filter((r) => r.plan !== null)
  const first = view.rounds[0]
  const body = rounds.length === 0 ? absent(view, first === undefined ? 'sample-mixture' : first.trainKey.replace(/train$/, 'sample-mixture'), 'mixture') : planned(view, rounds)
  return { id: 'mixture', title: 'Mixture by round', body }
}

const planned = (view: View, rounds: readonly Round[]): Html => {
  const target = view.request.spec.targetLanguage
  const segments = segmentsOf(rounds, target)
  return h`
${figure('Planned share of tokens by language and kind of source', h`${legend([...new Set(segments.map((s) => s.group))].map((g) => ({ name: groupTitle(g), colour: groupColour(g, target) })))}${mixtureChart(rounds, segments, target)}`)}
${table<Round>(
  [
    { head: 'Round', cell: (r) => r.label },
    { head: 'Order', cell: (r) => r.order },
    { head: 'Tokens', numeric: true, cell: (r) => count(r.plan?.numTokens ?? 0) },
    { head: 'Documents', numeric: true, cell: (r) => count(r.plan?.numDocs ?? 0) },
    { head: 'Pieces', numeric: true, cell: (r) => count(r.plan?.numPieces ?? 0) },
    { head: 'Largest gap to share', numeric: true, cell: (r) => `${count(Math.round(r.plan?.maxOffShareTokens ?? 0))} tokens` },
    { head: 'Borrowed', numeric: true, cell: (r) => tokensMark(sum(strata(r).map((s) => s.borrowedTokens)), sum(strata(r).map((s) => s.tokens))) },
    { head: 'Repeated', numeric: true, cell: (r) => tokensMark(sum(strata(r).map((s) => s.repeatedTokens)), sum(strata(r).map((s) => s.tokens))) },
  ],
  rounds,
)}
${note('Borrowed: a stratum’s perplexity band was too short and took from later bands. Repeated: tokens that the run had already drawn once. The gap is the farthest that any stratum was from its share at any point of the round.')}
${notes(view)}
${rounds.map((r) => details(`${r.label}: every stratum, planned against drawn`, strataTable(r, target)))}`
}

const Noted = z.object({ notes: z.array(z.string()) })

/** What the planner had to leave out or to move. */
const notes = (view: View): Html => {
  const said = view.source.decisions.filter((d) => d.kind === 'mixture').flatMap((d) => (Noted.safeParse(d.output).data?.notes ?? []).map((text) => ({ key: d.key, text })))
  return said.length === 0 ? h`` : h`<ul>${said.map((s) => h`<li><code>${s.key}</code>: ${s.text}</li>`)}</ul>`
}

const strata = (round: Round): readonly Planned[] => round.plan?.strata ?? []

/** Kinds of a group from its largest, each a step paler, so that a language keeps one hue. */
const segmentsOf = (rounds: readonly Round[], target: string): Segment[] =>
  groupsOf(rounds.flatMap(strata), target).flatMap((group) => {
    const kinds = [...new Set(rounds.flatMap(strata).filter((s) => groupOf(s) === group).map((s) => s.kind))]
    const of = (round: Round, kind: string): { ratio: number; tokens: number } => {
      const mine = strata(round).filter((s) => groupOf(s) === group && s.kind === kind)
      return { ratio: sum(mine.map((s) => s.ratio)), tokens: sum(mine.map((s) => s.tokens)) }
    }
    return kinds
      .map((kind) => ({ group, kind, byRound: rounds.map((r) => of(r, kind)) }))
      .sort((a, b) => sum(b.byRound.map((x) => x.ratio)) - sum(a.byRound.map((x) => x.ratio)))
      .map((s, i) => ({ ...s, opacity: Math.max(0.28, 1 - i * 0.14) }))
  })

const mixtureChart = (rounds: readonly Round[], segments: readonly Segment[], target: string): Html =>
  chart('mixture', rounds.map((r, i) => `${r.label}: ${segments.map((s) => `${groupTitle(s.group)} ${s.kind} ${percent(s.byRound[i]?.ratio ?? 0)}`).join(', ')}`).join('; '), 52 + rounds.length * 46, {
    grid: { left: 150, right: 24, top: 4, bottom: 44 },
    xAxis: valueAxis('planned share of the round’s tokens (%)', { max: 100 }),
    yAxis: categoryAxis(rounds.map((r) => clip(r.label, 20)), { inverse: true, axisLine: { show: false } }),
    series: segments.map((s) => ({
      type: 'bar',
      stack: 'all',
      barWidth: 28,
      itemStyle: { color: groupColour(s.group, target), opacity: s.opacity, borderColor: ink.paper, borderWidth: 1 },
      label: { show: true, fontSize: 11, color: s.opacity > 0.6 ? ink.paper : ink.text, formatter: (p: { value: number }) => (p.value < 4.5 ? '' : clip(s.kind, Math.floor(p.value * 1.3))) },
      data: s.byRound.map((r) => Math.round(r.ratio * 1e5) / 1e3),
    })),
  })

const strataTable = (round: Round, target: string): Html => {
  const total = sum(strata(round).map((s) => s.tokens))
  const order = groupsOf(strata(round), target)
  const rows = [...strata(round)].sort((a, b) => order.indexOf(groupOf(a)) - order.indexOf(groupOf(b)) || b.ratio - a.ratio)
  return h`${table<Planned>(
    [
      { head: 'Group', cell: (s) => groupTitle(groupOf(s)) },
      { head: 'Stratum', cell: stratumName },
      { head: 'Planned', numeric: true, cell: (s) => percent(s.ratio, 2) },
      { head: 'Planned tokens', numeric: true, cell: (s) => count(Math.round(s.ratio * total)) },
      { head: 'Drawn tokens', numeric: true, cell: (s) => count(s.tokens) },
      { head: 'Drawn − planned', numeric: true, cell: (s) => signed(s.tokens - s.ratio * total, 0) },
      { head: 'Available', numeric: true, cell: (s) => count(s.availableTokens) },
      { head: 'Borrowed', numeric: true, cell: (s) => tokensMark(s.borrowedTokens, s.tokens) },
      { head: 'Repeated', numeric: true, cell: (s) => tokensMark(s.repeatedTokens, s.tokens) },
      { head: 'Mean nats/token', numeric: true, cell: (s) => fixed(s.meanNll, 2) },
    ],
    rows,
  )}<p class="note">${plural(rows.length, 'stratum', 'strata')}; ratios sum to ${percent(sum(rows.map((s) => s.ratio)), 2)}.</p>`
}

const tokensMark = (tokens: number, of: number): Html | string => (tokens === 0 ? '–' : badge('warn', `${count(tokens)} (${share(tokens / Math.max(1, of))})`))

const share = (x: number): string => (x < 0.001 ? '< 0.1 %' : percent(x))
