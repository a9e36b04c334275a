import { compareBenchmark } from '@cpt/contracts/evaluate-benchmark'
import { comparePerplexity } from '@cpt/contracts/evaluate-perplexity'
import { ingest } from '@cpt/contracts/ingest'
import { tokenize } from '@cpt/contracts/tokenize'
import { h, type Html } from './html.ts'
import { count, fixed, languageName, plural, plusMinus, ppl, seconds, short, signed, utc } from './numbers.ts'
import { badge } from './table.ts'
import { timing } from './timing.ts'
import { resultOf, type View } from './view.ts'

type Group = NonNullable<ReturnType<typeof changes>>[number]

/** Base against final model by group: `retention`, and each language of the corpus. */
export const changes = (view: View) => resultOf(view, 'final/compare-perplexity', comparePerplexity)?.groups ?? null

export const groupName = (view: View, group: string): string => (group === 'retention' ? `retained ${retainedLanguage(view)}` : group === 'synthetic' ? 'synthetic text' : languageName(group))

const retainedLanguage = (view: View): string => {
  const languages = new Set(resultOf(view, 'final/compare-perplexity', comparePerplexity)?.strata.filter((s) => s.set === 'retention').map((s) => s.language))
  return languages.size === 1 ? languageName([...languages][0] ?? '') : 'text'
}

export const verdictBadge = (verdict: string): Html => badge(verdict === 'pass' ? 'good' : verdict === 'fail' ? 'bad' : 'warn', verdict)

/** The head of the page: what a reader who stops here should know. */
export const summary = (view: View): Html => {
  const { request } = view
  const { spec } = request
  const groups = changes(view) ?? []
  const t = timing(request)
  const tokens = view.rounds.reduce((sum, r) => sum + (r.train?.tokens ?? 0), 0)
  const target = groups.find((g) => g.group === spec.targetLanguage)
  const retention = groups.find((g) => g.group === 'retention')
  return h`<header class="top">
<p class="kicker">Continual pre-training report</p>
<h1>${spec.name} <span class="verdict">${verdictBadge(request.verdict)}</span></h1>
${spec.description === '' ? '' : h`<p>${spec.description}</p>`}
<ul class="meta"><li>${request.workflowId}</li><li>started ${utc(request.startedAtMs)}</li>${spec.owner === '' ? '' : h`<li>owner ${spec.owner}</li>`}<li>seed ${spec.seed}</li><li>${plural(request.resolved.parameters, 'parameter')}</li></ul>
<div class="lead">${sentences(view, groups, tokens)}</div>
<div class="tiles">
${target === undefined ? '' : changeTile(view, target)}
${retention === undefined ? '' : changeTile(view, retention)}
<div class="tile"><b>${short(tokens)}</b><span>tokens trained in ${plural(view.rounds.filter((r) => r.train !== null).length, 'round')}</span></div>
<div class="tile"><b>${seconds(t.totalSeconds)}</b><span>from start to report; ${fixed(t.idleShare * 100, 0)} % of it no job computed</span></div>
</div>
</header>`
}

const changeTile = (view: View, g: Group): Html => {
  const good = g.deltaNll <= (g.group === 'retention' ? view.request.spec.gate.retentionToleranceNats : 0)
  return h`<div class="tile"><b class="${good ? 'good' : 'bad'}">${signed(g.deltaNll, 2)}</b><span>±\u00a0${fixed(g.seNll, 3)} nats per token on ${groupName(view, g.group)}</span></div>`
}

const sentences = (view: View, groups: readonly Group[], tokens: number): Html[] => {
  const { spec } = view.request
  const target = groups.find((g) => g.group === spec.targetLanguage)
  const retention = groups.find((g) => g.group === 'retention')
  const others = groups.filter((g) => g !== target && g !== retention)
  const said = [
    target === undefined ? null : h`${languageName(spec.targetLanguage)} loss ${moved(target)} nats per token (perplexity ${ppl(Math.exp(target.nllBefore))} → ${ppl(Math.exp(target.nllAfter))}).`,
    retention === undefined ? null : h`Text like the base’s own, ${groupName(view, 'retention')}, ${moved(retention)}, ${tolerance(view, retention)}.`,
    others.length === 0 ? null : h`${others.map((g, i) => h`${i === 0 ? '' : '; '}${groupName(view, g.group)} of the corpus ${moved(g)}`)}.`,
    benchmarkSentence(view),
  ].filter((s) => s !== null)
  const lines = resultOf(view, 'ingest', ingest)?.counts.lines
  const docs = resultOf(view, 'tokenize', tokenize)?.counts.docs
  const data = lines === undefined || docs === undefined ? '' : ` ${plural(lines, 'line')} of raw text came in, ${count(docs)} documents remained to train on.`
  return [
    said.length === 0 ? h`<p>The base and the final model have not been compared.</p>` : h`<p>${said.map((s) => h`${s} `)}</p>`,
    h`<p>The gate’s verdict is <strong>${view.request.verdict}</strong>. ${plural(tokens, 'token')} were trained.${data}</p>`,
  ]
}

const moved = (g: Group): string => {
  const size = `${fixed(Math.abs(g.deltaNll), 2)} ± ${fixed(g.seNll, 2)}`
  return Math.abs(g.deltaNll) <= 2 * g.seNll ? `hardly moved (${plusMinus(g.deltaNll, g.seNll, 3)})` : `${g.deltaNll < 0 ? 'fell' : 'rose'} by ${size}`
}

const tolerance = (view: View, g: Group): string => {
  const { retentionToleranceNats: bound, z } = view.request.spec.gate
  const at = `the tolerance of ${bound}`
  if (g.deltaNll + z * g.seNll <= bound) return `within ${at}`
  return g.deltaNll - z * g.seNll > bound ? `beyond ${at}` : `which is not shown to be within ${at}`
}

const benchmarkSentence = (view: View): Html | null => {
  const compared = view.request.spec.evaluation.benchmarks.flatMap(({ name }) => {
    const c = resultOf(view, `compare/${name}`, compareBenchmark)
    return c === null ? [] : [{ name, c }]
  })
  if (compared.length === 0) return null
  const changed = compared.filter(({ c }) => Math.abs(c.difference) > 2 * c.standardError && c.standardError > 0).map(({ name }) => name)
  return h`Of ${plural(compared.length, 'benchmark')}, ${changed.length === 0 ? 'none' : `${count(changed.length)} (${changed.slice(0, 4).join(', ')}${changed.length > 4 ? ' …' : ''})`} changed by more than two standard errors.`
}
