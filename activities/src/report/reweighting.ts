import { z } from 'zod'
import { h, type Html } from './html.ts'
import { decimals, fixed, percent, plusMinus, signed } from './numbers.ts'
import { groupTitle } from './strata.ts'
import { details, note, table } from './table.ts'
import type { Section, View } from './view.ts'

/** Decisions of other versions may say more or less: whatever has a topic and numbers is shown. */
const Change = z.looseObject({ topic: z.string().nullable(), language: z.string().optional(), kind: z.string().optional(), ratio: z.number().optional(), before: z.number().optional(), after: z.number().optional(), delta: z.number().nullable().optional(), deltaPpl: z.number().nullable().optional(), deltaNll: z.number().nullable().optional(), se: z.number().nullable().optional(), factor: z.number().optional(), note: z.string().optional() })
type Change = z.infer<typeof Change>

/** How the loop moved the topics' shares, each with the measurement it moved by. */
export const reweighting = (view: View): Section => {
  const decisions = view.source.decisions.filter((d) => d.kind === 'reweight')
  const { reweight } = view.request.spec
  const body =
    decisions.length === 0
      ? h`<p class="absent">No shares were reweighted: ${view.request.spec.plan.some((s) => s.reweight && s.rounds > 1) ? 'no decision is on record' : 'the plan has no stage of several rounds that asks for it'}.</p>`
      : h`<p>Within each language, a topic whose ${reweight.measure === 'ppl' ? 'perplexity' : 'loss'} rose since the last measurement gets more, one whose ${reweight.measure === 'ppl' ? 'perplexity' : 'loss'} fell gets less: r ← r·f ∕ Σ r·f with f = 1 + α·δ·w, α = ${reweight.alpha}. Changes within ${reweight.noiseK} standard errors count as none; a share moves by at most ${percent(reweight.cap)} and stays above ${percent(reweight.floor)}.</p>
${decisions.map((d) => h`<h3>${d.key}</h3>${oneDecision(d.inputs, d.output)}${details('The decision as recorded', h`<pre>${JSON.stringify({ inputs: d.inputs, output: d.output }, null, 2)}</pre>`)}`)}
${note('Shares are of the language’s web tokens; the ratio between languages is the stage’s and does not move.')}`
  return { id: 'reweighting', title: 'Reweighting', body }
}

const oneDecision = (inputs: unknown, output: unknown): Html => {
  const rows = listIn(output)
  const before = new Map(listIn(inputs).map((c) => [keyOf(c), c]))
  if (rows.length === 0) return h`<p class="absent">The recorded form is not one this report can lay out.</p>`
  const merged = rows.map((after) => {
    const was = before.get(keyOf(after))
    return { after, was: after.before ?? was?.ratio ?? was?.before, now: after.after ?? after.ratio, delta: after.delta ?? after.deltaPpl ?? was?.deltaPpl ?? was?.delta ?? after.deltaNll ?? was?.deltaNll, se: after.se ?? was?.se }
  })
  return table(
    [
      { head: 'Language', cell: (r) => (r.after.language === undefined ? '' : groupTitle(r.after.language)) },
      { head: 'Topic', cell: (r) => r.after.topic ?? r.after.kind ?? '–' },
      { head: 'Measured change', numeric: true, cell: (r) => (typeof r.delta !== 'number' ? '–' : typeof r.se === 'number' ? plusMinus(r.delta, r.se, decimals(r.delta)) : signed(r.delta, decimals(r.delta))) },
      { head: 'Factor', numeric: true, cell: (r) => fixed(r.after.factor) },
      { head: 'Share before', numeric: true, cell: (r) => (r.was === undefined ? '–' : percent(r.was, 2)) },
      { head: 'Share after', numeric: true, cell: (r) => (r.now === undefined ? '–' : percent(r.now, 2)) },
      { head: 'Moved (points)', numeric: true, cell: (r) => (r.was === undefined || r.now === undefined ? '–' : signed((r.now - r.was) * 100, 2)) },
      { head: 'Note', cell: (r) => r.after.note ?? '' },
    ],
    merged,
  )
}

const keyOf = (c: Change): string => JSON.stringify([c.language, c.topic])

/** The first list of topics anywhere in a recorded value. */
const listIn = (value: unknown): Change[] => {
  const direct = z.array(Change).min(1).safeParse(value)
  if (direct.success) return direct.data
  if (typeof value !== 'object' || value === null) return []
  for (const inner of Object.values(value)) {
    const found = listIn(inner)
    if (found.length > 0) return found
  }
  return []
}
