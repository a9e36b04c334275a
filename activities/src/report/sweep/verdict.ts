import { h, type Html } from '../html.ts'
import { count, languageName, plural, rate, seconds, short, signed, utc } from '../numbers.ts'
import { badge } from '../table.ts'
import { timing } from '../timing.ts'
import { budgetOf } from './budget.ts'
import type { SweepView } from './sweep-view.ts'

/** What the sweep came to, in one word for lists of runs. */
export const verdictWord = ({ verdict }: SweepView['request']): string => (verdict === null ? 'none' : verdict.chosen === null ? 'nothing feasible' : verdict.edges.length > 0 ? 'edge of the grid' : verdict.missing.length > 0 ? 'incomplete' : 'chosen')

/** The head of the page: the verdict in words, loudest where a reader must not go on as if nothing were wrong. */
export const verdictHead = (view: SweepView): Html => {
  const { request } = view
  const { sweep, run } = request.resolved
  const word = verdictWord(request)
  return h`<header class="top">
<p class="kicker">Sweep over ALMR and peak learning rate</p>
<h1>${sweep.name} <span class="verdict">${badge(word === 'chosen' ? 'good' : word === 'nothing feasible' || word === 'none' ? 'bad' : 'warn', word === 'none' ? 'no verdict' : word)}</span></h1>
${sweep.description === '' ? '' : h`<p>${sweep.description}</p>`}
<ul class="meta"><li>${request.workflowId}</li><li>started ${utc(request.startedAtMs)}</li>${sweep.owner === '' ? '' : h`<li>owner ${sweep.owner}</li>`}<li>adds ${languageName(run.spec.targetLanguage)}</li><li>proxy ${run.spec.base.model}, ${plural(run.parameters, 'parameter')}</li></ul>
${alarms(view)}
${said(view)}
${tiles(view)}
</header>`
}

const said = ({ request: { verdict } }: SweepView): Html => {
  if (verdict === null) return h`<div class="lead"><p>The sweep ended without a verdict: nothing was chosen. Below is what its trials had measured until then.</p></div>`
  const [first = '', ...more] = verdict.words
  return h`<div class="lead"><p>${first}</p></div>${more.length === 0 ? '' : h`<ul class="findings">${more.map((w) => h`<li>${w}</li>`)}</ul>`}`
}

const sides = { 'smallest-almr': 'the smallest ALMR above the control', 'largest-almr': 'the largest ALMR', 'smallest-lr': 'the smallest learning rate', 'largest-lr': 'the largest learning rate' } as const

const alarms = (view: SweepView): Html => {
  const { verdict, resolved, trials } = view.request
  const missing = trials.filter((t) => t.measurement === null).length
  const alarm = (kind: 'bad' | 'warn', title: string, text: Html | string): Html => h`<div class="alarm ${kind}" role="note"><strong>${title}</strong><span>${text}</span></div>`
  return h`${[
    verdict === null ? alarm('bad', 'No verdict', 'the sweep ended before it could choose.') : '',
    verdict !== null && verdict.chosen === null ? alarm('bad', 'Nothing feasible', `no complete mixture keeps the retained loss within +${resolved.sweep.choice.retentionToleranceNats} nats per token of the base.`) : '',
    verdict !== null && verdict.edges.length > 0 ? alarm('warn', 'At the edge of the grid', `${verdict.edges.map((e) => sides[e]).join(' and ')}: the optimum may lie beyond.`) : '',
    missing > 0 ? alarm('warn', `${plural(missing, 'trial')} missing`, h`of ${count(trials.length)}; <a href="#missing">which, and why</a>.`) : '',
    isSpent(view) ? alarm('warn', 'Budget spent', h`${plural(trials.filter((t) => t.status === 'unstarted').length, 'trial')} could not begin; <a href="#budget">the ledger</a>.`) : '',
  ]}`
}

/** Trials are left that never began, and the next one would go beyond the budget. */
const isSpent = ({ request: { ledger, trials, resolved } }: SweepView): boolean => {
  const { budget, spent, held } = budgetOf(ledger)
  const costs = ledger.settled.map((i) => ledger.spent[i] ?? 0).filter((cost) => cost > 0)
  const next = costs.length === 0 ? resolved.sweep.expectedGpuSeconds : Math.max(...costs)
  return budget !== null && trials.some((t) => t.status === 'unstarted') && spent + held + next > budget
}

const tiles = (view: SweepView): Html => {
  const { request, chosen, base } = view
  const { sweep } = request.resolved
  const done = view.trials.filter((t) => t.status === 'done').length
  const { spent, held, budget } = budgetOf(request.ledger)
  const tile = (value: string, text: string, tone = ''): Html => h`<div class="tile"><b class="${tone}">${value}</b><span>${text}</span></div>`
  return h`<div class="tiles">
${chosen === null ? tile('–', 'nothing chosen') : tile(`${chosen.almr} · ${rate(chosen.peakLr)}`, 'ALMR and peak learning rate chosen')}
${chosen === null ? '' : tile(signed(chosen.losses.added - base.added, 3), `nats per token on the added ${languageName(request.resolved.run.spec.targetLanguage)}`, chosen.losses.added < base.added ? 'good' : 'bad')}
${chosen === null ? '' : tile(signed(chosen.losses.retained - base.retained, 3), `on what is retained; allowed +${sweep.choice.retentionToleranceNats}`, chosen.losses.retained <= view.bound ? 'good' : 'bad')}
${tile(`${count(done)} of ${count(view.trials.length)}`, `trials of ${short(sweep.tokensPerTrial)} tokens measured, ${plural(sweep.grid.seeds.length, 'seed')} a cell`)}
${tile(count(Math.round(spent)), `${budget === null ? 'GPU-seconds spent, no limit' : `of ${count(budget)} GPU-seconds spent`}${held === 0 ? '' : `; ${count(Math.round(held))} reserved`}`)}
${tile(seconds(timing(request).totalSeconds), 'from start to report')}
</div>`
}
