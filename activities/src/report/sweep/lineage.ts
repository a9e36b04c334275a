import type { ArtifactRef } from '@cpt/contracts/artifact'
import type { StageLine } from '@cpt/contracts/cpt-run'
import { h } from '../html.ts'
import { bytes, count, digest, languageName, plural, rate } from '../numbers.ts'
import type { Section } from '../page.ts'
import { details, note, table } from '../table.ts'
import type { SweepView } from './sweep-view.ts'

/** What the sweep was asked, and what it stands on. */
export const lineage = (view: SweepView): Section => {
  const { request } = view
  const { sweep, run } = request.resolved
  const facts: [string, string][] = [
    ['ALMR', ['0 (control)', ...sweep.grid.almr.filter((a) => a > 0)].join(', ')],
    ['Peak learning rates', sweep.grid.peakLrs.map(rate).join(', ')],
    ['Seeds', sweep.grid.seeds.join(', ')],
    ['Tokens per trial', count(sweep.tokensPerTrial)],
    ['Order', sweep.order],
    ['Added language', languageName(run.spec.targetLanguage)],
    ['Retained languages', Object.entries(sweep.retained).map(([l, share]) => `${languageName(l)} ${share}`).join(', ')],
    ['Retained loss may rise by', `${sweep.choice.retentionToleranceNats} nats/token`],
    ['Ties within', `${sweep.choice.z} standard errors`],
    ['Trials at a time', count(sweep.parallel)],
    ['Expected of a trial', plural(sweep.expectedGpuSeconds, 'GPU-second')],
    ['Parked trials', sweep.parkedTrials === 'wait' ? 'are waited for' : 'are left open'],
    ['Proxy model', run.spec.base.model],
    ['Parameters', count(run.parameters)],
    ...(run.corpus === undefined ? [] : [['Committed corpus', `${run.corpus.name}, number ${run.corpus.number}`] satisfies [string, string]]),
  ]
  const artifacts: [string, ArtifactRef][] = [
    ['Base model (proxy)', run.base],
    ['Tokenizer', run.tokenizer],
    ...run.sources.map((s): [string, ArtifactRef] => [`Source ${[s.name, s.part].filter(Boolean).join('/')}`, s.file]),
    ...(request.verdictRef === null ? [] : [['Verdict', request.verdictRef] satisfies [string, ArtifactRef]]),
    ...(view.chosen?.trials ?? []).flatMap((t): [string, ArtifactRef][] => (t.measurement === null ? [] : [[`Model of the chosen cell, seed ${t.point.seed}`, t.measurement.model]])),
  ]
  const body = h`
<dl class="facts">${facts.map(([name, value]) => h`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
${table(
  [
    { head: 'What', cell: ([what]) => what },
    { head: 'Where', code: true, cell: ([, ref]) => ref.uri.replace(/([0-9a-f]{12})[0-9a-f]{52}/, '$1…') },
    { head: 'Size', numeric: true, cell: ([, ref]) => bytes(ref.bytes) },
    { head: 'sha256', cell: ([, ref]) => h`<code title="${ref.sha256}">${digest(ref.sha256)}</code>` },
  ],
  artifacts,
)}
${request.verdictRef === null ? h`<p class="absent">No verdict was kept.</p>` : h`<p>A transfer cites this verdict as <code>${request.verdictRef.uri}</code> with the digest <code>${request.verdictRef.sha256}</code>.</p>`}
${request.decisions.length === 0 ? '' : h`<p>Decisions with their inputs: ${request.decisions.map((d, i) => h`${i === 0 ? '' : ', '}${d.kind} <code>${d.uri}</code>`)}.</p>`}
${details(
  'Stages that all trials share, by fingerprint',
  table<StageLine>(
    [
      { head: 'Line', cell: (l) => l.key },
      { head: 'Stage', cell: (l) => l.stage },
      { head: 'State', cell: (l) => l.state },
      { head: 'Fingerprint', code: true, cell: (l) => l.fingerprint },
    ],
    request.lines.filter((l) => l.fingerprint !== ''),
  ),
)}
${note('The corpus is prepared and the base measured once; each trial is trained from the base. Equal fingerprints mean the same work, which is then not done again, within a sweep and across sweeps.')}`
  return { id: 'lineage', title: 'Settings and lineage', body }
}
