import { nllBinNats, scorePpl, type Extremes } from '@cpt/contracts/score-ppl'
import { categoryAxis, chart, ink, valueAxis } from './chart.ts'
import { h, type Html } from './html.ts'
import { count, fixed, percent, plural, ppl, short } from './numbers.ts'
import type { Section } from './page.ts'
import { details, figure, note, table } from './table.ts'
import { absent, resultOf, type View } from './view.ts'

/** Perplexity of every document by the base: what the curriculum is ordered by. */
export const scores = (view: View): Section => {
  const result = resultOf(view, 'score-ppl', scorePpl)
  const counts = result?.counts
  const id = 'scores'
  const title = 'Perplexity of the corpus'
  if (counts === undefined) return { id, title, body: absent(view, 'score-ppl', 'perplexity histogram') }
  const mean = counts.sumNllNats / Math.max(1, counts.scoredTokens)
  const buckets = histogram(counts.pplHistogram)
  const body = h`<p>The base scored ${plural(counts.scored, 'document')} of ${count(counts.docs)} (${plural(counts.scoredTokens, 'token')}). Mean loss ${fixed(mean)} nats per token, perplexity ${ppl(Math.exp(mean))}. Documents too short to judge carry no score${counts.nonFinite === undefined || counts.nonFinite === 0 ? '' : `, nor do ${plural(counts.nonFinite, 'document')} whose loss is not finite`}.${costOf(counts)}</p>
${figure(
  'Documents by perplexity',
  chart(id, `Histogram of perplexity: ${buckets.map((b) => `${b.label}: ${b.docs}`).join(', ')}`, 300, {
    grid: { left: 64, right: 16, top: 22, bottom: 52 },
    xAxis: categoryAxis(buckets.map((b) => b.label), { name: 'perplexity by the base (each bucket doubles)', nameGap: 32 }),
    yAxis: valueAxis('documents', { nameGap: 46, minInterval: 1 }),
    series: [{ type: 'bar', barCategoryGap: '8%', itemStyle: { color: ink.accent }, label: { show: true, position: 'top', color: ink.soft, formatter: (p: { value: number }) => (p.value === 0 ? '' : count(p.value)) }, data: buckets.map((b) => b.docs) }],
  }),
)}
${percentiles(counts.nllHistogram ?? {})}${extremes(result?.extremes, view.request.run)}
${note('Rounds in perplexity order go through every stratum from its easy end to its hard end; the order is taken within a stratum, never between languages.')}`
  return { id, title, body }
}

/** What it took, where it was counted. */
const costOf = ({ inputTokens, paddedTokens, flop }: { inputTokens?: number | undefined; paddedTokens?: number | undefined; flop?: number | undefined }): string =>
  inputTokens === undefined || paddedTokens === undefined || paddedTokens === 0 ? '' : ` It read ${plural(inputTokens, 'token')}, with ${percent(1 - inputTokens / paddedTokens, 2)} of padding${flop === undefined || flop === 0 ? '' : ` (${flop.toExponential(1)} FLOP)`}.`

const shares = [1, 5, 25, 50, 75, 95, 99] as const

/** The perplexity that so many percent of the documents stay under, from bins of 2 %: the middle of the bin. */
const percentiles = (bins: Readonly<Record<string, number>>): Html | string => {
  const sorted = Object.entries(bins).map(([bin, docs]) => ({ nats: (Number(bin) + 0.5) * nllBinNats, docs })).sort((a, b) => a.nats - b.nats)
  const all = sorted.reduce((sum, b) => sum + b.docs, 0)
  if (all === 0) return ''
  const at = (share: number): number => {
    let seen = 0
    return sorted.find((b) => (seen += b.docs) >= (share / 100) * all)?.nats ?? Number.NaN
  }
  return table(shares.map((share) => ({ head: `${share} %`, numeric: true, cell: () => ppl(Math.exp(at(share))) })), [null], { caption: 'Percentiles of perplexity over documents' })
}

const extremes = (found: Extremes | undefined, run: string): Html | string => {
  if (found === undefined) return ''
  const ranked = (docs: Extremes['highest']): Html =>
    table([
      { head: 'Document', code: true, cell: placeOf },
      { head: 'Perplexity', numeric: true, cell: (d) => ppl(Math.exp(d.nll)) },
      { head: 'Tokens', numeric: true, cell: (d) => count(d.tokens) },
    ], docs)
  return h`${details('Documents of highest perplexity', ranked(found.highest))}
${details('Documents of lowest perplexity', ranked(found.lowest))}${found.nonFinite.length === 0 ? '' : details('Documents without a finite loss', h`<p>${found.nonFinite.map(placeOf).join(' · ')}</p>`)}
${note(h`<code>npx cpt corpus inspect ${run} @shard/row</code> shows one of them.`)}`
}

const placeOf = ({ shard, row }: { shard: number; row: number }): string => `@${shard}/${row}`

// score_ppl.py counts everything from 2^20 up in its last bucket
const lastPower = 20

/** Keys are the lower bounds of buckets that double; empty ones between the outermost are shown too. */
const histogram = (by: Readonly<Record<string, number>>): { label: string; docs: number }[] => {
  const powers = Object.keys(by).map((k) => Math.log2(Number(k))).filter((p) => Number.isInteger(p) && p >= 0 && p <= 64)
  if (powers.length === 0) return []
  const first = Math.min(...powers)
  return Array.from({ length: Math.max(...powers) - first + 1 }, (_, i) => ({ label: bucketName(first + i), docs: by[String(2 ** (first + i))] ?? 0 }))
}

const bucketName = (power: number): string => (power >= lastPower ? `≥ ${bound(power)}` : `${bound(power)}–${bound(power + 1)}`)
const bound = (power: number): string => (power < 13 ? count(2 ** power) : short(2 ** power))
