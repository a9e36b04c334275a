import type { PlanStage } from '@cpt/contracts/cpt-run'
import { h, type Html } from './html.ts'
import { bytes, count, digest, languageName, percent, plural, rate } from './numbers.ts'
import type { Section } from './page.ts'
import { groupTitle, sum } from './strata.ts'
import { details, table } from './table.ts'
import type { View } from './view.ts'

/** What the run was told to do. */
export const asked = (view: View): Section => {
  const { spec, resolved } = view.request
  const body = h`
<p>Go on training <code>${spec.base.model}</code> on ${count(sum(spec.plan.map((s) => s.tokens)))} tokens so that it learns ${languageName(spec.targetLanguage)}, and keep what it knows: a rise of more than ${spec.gate.retentionToleranceNats} nats per token on text like its own counts as forgetting.</p>
<h3>Plan</h3>
${table<PlanStage>(
  [
    { head: 'Stage', cell: (s) => s.name },
    { head: 'Rounds', numeric: true, cell: (s) => count(s.rounds) },
    { head: 'Tokens', numeric: true, cell: (s) => count(s.tokens) },
    { head: 'Mixture', cell: (s) => ratios(s.mixture.languages, groupTitle) },
    { head: 'Kinds of source', cell: kinds },
    { head: 'Web topics start', cell: (s) => (typeof s.mixture.topics === 'string' ? s.mixture.topics : 'as named') },
    { head: 'Order', cell: (s) => (s.order === 'perplexity' ? `perplexity, low → high${s.curriculumLanguages === null ? '' : ` (${s.curriculumLanguages.join(', ')})`}` : 'random') },
    { head: 'Reweighted', cell: (s) => (s.reweight ? 'yes' : 'no') },
  ],
  spec.plan,
)}
<h3>Training</h3>
<dl class="facts">${facts(view).map(([name, value]) => h`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
<h3>Sources</h3>
${table(
  [
    { head: 'Source', cell: (s) => s.name },
    { head: 'File', code: true, cell: (s) => s.path },
    { head: 'Language', cell: (s) => s.language ?? 'per document' },
    { head: 'Kind', cell: (s) => s.kind ?? 'per document' },
    { head: 'Use', cell: (s) => (s.use === 'train' ? 'training' : 'validation only') },
    { head: 'Licence', cell: (s) => s.license ?? 'per document' },
    { head: 'Size', numeric: true, cell: (s) => filesOf(view, s.name, (files) => bytes(files.reduce((sum, f) => sum + f.bytes, 0))) },
    { head: 'sha256', code: true, cell: (s) => filesOf(view, s.name, ([first, ...more]) => (first === undefined ? '–' : more.length > 0 ? plural(more.length + 1, 'file') : digest(first.sha256))) },
  ],
  spec.corpus.sources,
)}
${details('The complete specification, every default filled in', h`<pre>${JSON.stringify(spec, null, 2)}</pre>`)}`
  return { id: 'asked', title: 'What was asked', body }

  function facts(v: View): [string, string | Html][] {
    const t = spec.training
    return [
      ['Base', h`<code>${spec.base.model}</code>`],
      ['Parameters', count(resolved.parameters)],
      ['Base digest', h`<code>${digest(resolved.base.sha256)}</code>`],
      ['Tokenizer digest', h`<code>${digest(resolved.tokenizer.sha256)}</code>`],
      ['Peak learning rate', rate(t.peakLr)],
      ['Schedule', t.schedule],
      ['Lowest learning rate', rate(t.minLr)],
      ['Warm-up', plural(t.warmupTokens, 'token')],
      ['Decay', plural(t.decayTokens, 'token')],
      ['Sequence', plural(t.sequenceTokens, 'token')],
      ['Global batch', plural(t.globalBatchTokens, 'token')],
      ['Optimizer between rounds', t.optimizerBetweenRounds],
      ['Optimizer between stages', t.optimizerBetweenStages],
      ['Precision', t.dtype],
      ['Seed', String(spec.seed)],
      ['Reweighting α, k, γ', [spec.reweight.alpha, spec.reweight.noiseK, spec.reweight.gamma].join(', ')],
      ['Reweighting floor, cap', `${percent(spec.reweight.floor)}, ${percent(spec.reweight.cap)}`],
      ['Gate: intervals at', `${v.request.spec.gate.z} standard errors`],
    ]
  }
}

const ratios = (r: Readonly<Record<string, number | undefined>>, title: (k: string) => string = (k) => k): string =>
  Object.entries(r)
    .map(([k, v]) => `${title(k)} ${percent(v ?? 0, Number.isInteger(Math.round((v ?? 0) * 1e6) / 1e4) ? 0 : 1)}`)
    .join(', ')

const kinds = (s: PlanStage): Html | string => {
  const given = Object.entries(s.mixture.kinds)
  return given.length === 0 ? 'as there are' : h`${given.map(([language, r], i) => h`${i === 0 ? '' : h`<br>`}${groupTitle(language)}: ${ratios(r)}`)}`
}

type File = View['request']['resolved']['sources'][number]['file']
const filesOf = (view: View, name: string, show: (files: File[]) => string): string => {
  const files = view.request.resolved.sources.filter((s) => s.name === name).map((s) => s.file)
  return files.length === 0 ? '–' : show(files)
}
