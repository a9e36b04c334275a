import { scorePpl } from '@cpt/contracts/score-ppl'
import { categoryAxis, chart, ink, valueAxis } from './chart.ts'
import { h } from './html.ts'
import { count, fixed, plural, ppl, short } from './numbers.ts'
import type { Section } from './page.ts'
import { figure, note } from './table.ts'
import { absent, resultOf, type View } from './view.ts'

/** Perplexity of every document by the base: what the curriculum is ordered by. */
export const scores = (view: View): Section => {
  const counts = resultOf(view, 'score-ppl', scorePpl)?.counts
  const id = 'scores'
  const title = 'Perplexity of the corpus'
  if (counts === undefined) return { id, title, body: absent(view, 'score-ppl', 'perplexity histogram') }
  const mean = counts.sumNllNats / Math.max(1, counts.scoredTokens)
  const buckets = histogram(counts.pplHistogram)
  const body = h`<p>The base scored ${plural(counts.scored, 'document')} of ${count(counts.docs)} (${plural(counts.scoredTokens, 'token')}). Mean loss ${fixed(mean)} nats per token, perplexity ${ppl(Math.exp(mean))}. Documents too short to judge carry no score.</p>
${figure(
  'Documents by perplexity',
  chart(id, `Histogram of perplexity: ${buckets.map((b) => `${b.label}: ${b.docs}`).join(', ')}`, 300, {
    grid: { left: 64, right: 16, top: 22, bottom: 52 },
    xAxis: categoryAxis(buckets.map((b) => b.label), { name: 'perplexity by the base (each bucket doubles)', nameGap: 32 }),
    yAxis: valueAxis('documents', { nameGap: 46, minInterval: 1 }),
    series: [{ type: 'bar', barCategoryGap: '8%', itemStyle: { color: ink.accent }, label: { show: true, position: 'top', color: ink.soft, formatter: (p: { value: number }) => (p.value === 0 ? '' : count(p.value)) }, data: buckets.map((b) => b.docs) }],
  }),
)}
${note('Rounds in perplexity order go through every stratum from its easy end to its hard end; the order is taken within a stratum, never between languages.')}`
  return { id, title, body }
}

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
