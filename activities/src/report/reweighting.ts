import { z } from 'zod'
import { PerplexityChange } from '@cpt/contracts/evaluate-perplexity'
import { h, type Html } from './html.ts'
import { decimals, fixed, percent, plusMinus, signed } from './numbers.ts'
import type { Section } from './page.ts'
import { groupTitle } from './strata.ts'
import { details, note, table } from './table.ts'
import type { View } from './view.ts'

const Ratios = z.record(z.string(), z.record(z.string(), z.number()))
const Inputs = z.object({ ratios: Ratios, changes: z.array(PerplexityChange).catch([]) })
const Output = z.object({ ratios: Ratios, factors: Ratios.catch({}), notes: z.array(z.string()).catch([]) })

interface Row {
  language: string
  topic: string
  change: PerplexityChange | undefined
  factor: number | undefined
  before: number | undefined
  after: number
}

/** How the loop moved the topics' shares, each with the measurement it moved by. */
export const reweighting = (view: View): Section => {
  const decisions = view.source.decisions.filter((d) => d.kind === 'reweight')
  const { reweight, plan } = view.request.spec
  const measure = reweight.measure === 'ppl' ? 'perplexity' : 'loss'
  const body =
    decisions.length === 0
      ? h`<p class="absent">No shares were reweighted: ${plan.some((s) => s.reweight && s.rounds > 1) ? 'no decision is on record' : 'the plan has no stage of several rounds that asks for it'}.</p>`
      : h`<p>Within each language, a topic whose ${measure} rose more, or fell less, than the others’ since the last measurement gains share: r ← r·f ∕ Σ r·f with f = 1 + α·δ·w, α = ${reweight.alpha}, δ being the change as a part of the largest one. Changes within ${reweight.noiseK} standard error${reweight.noiseK === 1 ? '' : 's'} count as none; a share moves by at most ${percent(reweight.cap)} and stays above ${percent(reweight.floor)}.</p>
${decisions.map((d) => h`<h3>After ${d.key.replace(/\/reweight$/, '')}</h3>${oneDecision(d.inputs, d.output, reweight.measure)}${details('The decision as recorded', h`<pre>${JSON.stringify({ inputs: d.inputs, output: d.output }, null, 2)}</pre>`)}`)}
${note('Shares are of the language’s web tokens; the ratio between languages is the stage’s and does not move.')}`
  return { id: 'reweighting', title: 'Reweighting', body }
}

const oneDecision = (inputs: unknown, output: unknown, measure: 'ppl' | 'nll'): Html => {
  const [given, decided] = [Inputs.safeParse(inputs).data, Output.safeParse(output).data]
  if (decided === undefined) return h`<p class="absent">The decision is not of a form this report can lay out.</p>`
  const rows = Object.entries(decided.ratios).flatMap(([language, topics]) =>
    Object.entries(topics).map(([topic, after]): Row => ({
      language,
      topic,
      after,
      before: given?.ratios[language]?.[topic],
      factor: decided.factors[language]?.[topic],
      change: given?.changes.find((c) => c.set === 'corpus' && c.language === language && (c.topic ?? '') === topic),
    })),
  )
  return h`${table<Row>(
    [
      { head: 'Language', cell: (r) => groupTitle(r.language) },
      { head: 'Topic', cell: (r) => r.topic || '–' },
      { head: measure === 'ppl' ? 'Change of perplexity' : 'Change of loss (nats/token)', numeric: true, cell: (r) => changeOf(r.change, measure) },
      { head: 'Factor f', numeric: true, cell: (r) => fixed(r.factor) },
      { head: 'Share before', numeric: true, cell: (r) => (r.before === undefined ? '–' : percent(r.before, 2)) },
      { head: 'Share after', numeric: true, cell: (r) => percent(r.after, 2) },
      { head: 'Moved (points)', numeric: true, cell: (r) => (r.before === undefined ? '–' : signed((r.after - r.before) * 100, 2)) },
    ],
    rows,
  )}${decided.notes.length === 0 ? '' : h`<ul>${decided.notes.map((n) => h`<li>${n}</li>`)}</ul>`}`
}

const changeOf = (c: PerplexityChange | undefined, measure: 'ppl' | 'nll'): string => {
  if (c === undefined) return '–'
  return measure === 'ppl' ? plusMinus(c.deltaPpl, c.sePpl, decimals(c.deltaPpl)) : plusMinus(c.deltaNll, c.seNll)
}
