import type { ArtifactRef } from '@cpt/contracts/artifact'
import type { StageLine } from '@cpt/contracts/cpt-run'
import { exportModel } from '@cpt/contracts/export-model'
import { holdOut } from '@cpt/contracts/hold-out'
import { ingest } from '@cpt/contracts/ingest'
import { scorePpl } from '@cpt/contracts/score-ppl'
import { tokenize } from '@cpt/contracts/tokenize'
import { h, type Html } from './html.ts'
import { bytes, count, digest, plural, short } from './numbers.ts'
import type { Section } from './page.ts'
import { details, note, table } from './table.ts'
import { recordOf, resultOf, type View } from './view.ts'

/** What the final model is made of: every artifact by digest, every stage by fingerprint. */
export const lineage = (view: View): Section => {
  const body = h`${chain(view)}
${table(
  [
    { head: 'What', cell: ([what]) => what },
    { head: 'Where', code: true, cell: ([, ref]) => shortUri(ref.uri) },
    { head: 'Size', numeric: true, cell: ([, ref]) => bytes(ref.bytes) },
    { head: 'sha256', cell: ([, ref]) => h`<code title="${ref.sha256}">${digest(ref.sha256)}</code>` },
  ],
  artifacts(view),
)}
${ledHere(view)}
${details(
  'Fingerprints of every stage, in full',
  table<StageLine>(
    [
      { head: 'Line', cell: (l) => l.key },
      { head: 'Stage', cell: (l) => `${l.stage} v${recordOf(view, l.key)?.version ?? '?'}` },
      { head: 'Fingerprint', code: true, cell: (l) => l.fingerprint },
      { head: 'Committed', cell: (l) => recordOf(view, l.key)?.committedAt.slice(0, 19).replace('T', ' ') ?? '–' },
      { head: 'Parents', numeric: true, cell: (l) => count(recordOf(view, l.key)?.parents.length ?? 0) },
    ],
    view.request.lines,
  ),
)}
${note('A fingerprint is the sha256 of a stage’s name, version and canonical request; equal fingerprints mean the same work, which is then not done again. Digests name bytes, whatever machine they lie on.')}`
  return { id: 'lineage', title: 'Lineage', body }
}

const chain = (view: View): Html => {
  const exported = resultOf(view, 'export-model', exportModel)
  const { base, parameters } = view.request.resolved
  return h`<ol class="chain">
<li><div>base<small>${short(parameters)} parameters · <code>${digest(base.sha256).slice(0, 8)}</code></small></div></li>
${view.rounds.filter((r) => r.train !== null).map((r) => h`<li><div>${r.label}<small>${short(r.train?.tokens ?? 0)} tokens · weights <code>${r.train?.weightsSha256.slice(0, 8) ?? ''}</code>${r.plan === null ? '' : h` · plan <code>${r.plan.plan.sha256.slice(0, 8)}</code>`}</small></div></li>`)}
${exported === null ? '' : h`<li><div>exported model<small>${plural(exported.files, 'file')} · weights <code>${exported.weightsSha256.slice(0, 8)}</code></small></div></li>`}
</ol>
${view.request.modelPath === null ? h`<p>No model was exported.</p>` : h`<p>The model lies at <code>${view.request.modelPath}</code>.</p>`}`
}

/** What led to the run before it began, as the verdict of a sweep. */
const ledHere = ({ request: { spec } }: View): Html =>
  spec.lineage === undefined || spec.lineage.length === 0
    ? h``
    : h`<h3>What led to this run</h3>${table(
        [
          { head: 'What', cell: (l) => l.what },
          { head: 'Where', code: true, cell: (l) => shortUri(l.uri) },
          { head: 'sha256', cell: (l) => h`<code title="${l.sha256}">${digest(l.sha256)}</code>` },
        ],
        spec.lineage,
      )}`

const artifacts = (view: View): [string, ArtifactRef][] => {
  const { resolved } = view.request
  const corpus = resultOf(view, 'ingest', ingest)
  const tokens = resultOf(view, 'tokenize', tokenize)
  const exported = resultOf(view, 'export-model', exportModel)
  const named: [string, ArtifactRef | undefined][] = [
    ['Base model', resolved.base],
    ['Tokenizer', resolved.tokenizer],
    ['Scorer of the corpus', resolved.scorer],
    ...resolved.sources.map((s): [string, ArtifactRef] => [`Source ${[s.name, s.part].filter(Boolean).join('/')}`, s.file]),
    ...resolved.benchmarks.map((b): [string, ArtifactRef] => [`Benchmark ${b.name}`, b.items]),
    ['Corpus', corpus?.corpus],
    ['Quarantined lines', corpus?.quarantine],
    ['Validation sets', resultOf(view, 'hold-out', holdOut)?.validation],
    ['Tokens', tokens?.tokens],
    ['Perplexity scores', resultOf(view, 'score-ppl', scorePpl)?.scores],
    ...view.rounds.flatMap((r): [string, ArtifactRef | undefined][] => [
      [`Plan of ${r.label}`, r.plan?.plan],
      [`Checkpoint after ${r.label}`, r.train?.checkpoint],
      [`Model after ${r.label}`, r.train?.model],
    ]),
    ['Exported model', exported?.model],
  ]
  return named.filter((row): row is [string, ArtifactRef] => row[1] !== undefined)
}

const shortUri = (uri: string): string => uri.replace(/^store:([0-9a-f]{12})[0-9a-f]{52}/, 'store:$1…')
