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
<div class="lead">${request.verdict === null ? h`<p>The sweep ended without a verdict: nothing was chosen. Below is what its trials had measured until then.</p>` : request.verdict.words.map((w) => h`<p>${w}</p>`)}</div>
${tiles(view)}
</header>`
}

const sides = { 'smallest-almr': 'the smallest ALMR above the control', 'largest-almr': 'the largest ALMR', 'smallest-lr': 'the smallest learning rate', 'largest-lr': 'the largest learning rate' } as const

const alarms = (view: SweepView): Html => {
  const { verdict, resolved, trials } = view.request
  const { spent, budget } = budgetOf(view.request.ledger)
  const alarm = (kind: 'bad' | 'warn', title: string, text: string): Html => h`<div class="alarm ${kind}" role="note"><strong>${title}</strong><span>${text}</span></div>`
  const unstarted = trials.filter((t) => t.status === 'unstarted').length
  return h`${[
    verdict === null ? alarm('bad', 'No verdict', 'The sweep ended before it could choose.') : '',
    verdict !== null && verdict.chosen === null ? alarm('bad', 'Nothing feasible', `No complete mixture kept the retained loss within +${resolved.sweep.choice.retentionToleranceNats} nats per token of the base: nothing was chosen, and nothing may be transferred.`) : '',
    verdict !== null && verdict.edges.length > 0 ? alarm('warn', 'At the edge of the grid', `The best cell is ${verdict.edges.map((e) => sides[e]).join(' and ')} that was tried: the optimum may lie beyond. Widen the grid there.`) : '',
    verdict !== null && verdict.missing.length > 0 ? alarm('warn', `${plural(verdict.missing.length, 'trial')} missing`, `Of ${count(trials.length)} trials; cells that lack a seed were no candidates. Which and why: below, under Missing trials.`) : '',
    budget !== null && unstarted > 0 && spent > 0 ? alarm('warn', 'Budget', `${plural(unstarted, 'trial')} never began; ${count(Math.round(spent))} of ${count(budget)} GPU-seconds are spent. Give more by the update setBudget of a sweep that runs, or sweep again: what is done is not done twice.`) : '',
  ]}`
}

const tiles = (view: SweepView): Html => {
  const { request, chosen, base } = view
  const { sweep } = request.resolved
  const done = view.trials.filter((t) => t.status === 'done').length
  const { spent, budget } = budgetOf(request.ledger)
  const tile = (value: string, text: string, tone = ''): Html => h`<div class="tile"><b class="${tone}">${value}</b><span>${text}</span></div>`
  return h`<div class="tiles">
${chosen === null ? tile('–', 'nothing chosen') : tile(`${chosen.almr} · ${rate(chosen.peakLr)}`, 'ALMR and peak learning rate chosen')}
${chosen === null ? '' : tile(signed(chosen.losses.added - base.added, 3), `nats per token on the added ${languageName(request.resolved.run.spec.targetLanguage)}`, chosen.losses.added < base.added ? 'good' : 'bad')}
${chosen === null ? '' : tile(signed(chosen.losses.retained - base.retained, 3), `on what is retained; allowed +${sweep.choice.retentionToleranceNats}`, chosen.losses.retained <= view.bound ? 'good' : 'bad')}
${tile(`${count(done)} of ${count(view.trials.length)}`, `trials of ${short(sweep.tokensPerTrial)} tokens measured, ${plural(sweep.grid.seeds.length, 'seed')} a cell`)}
${tile(count(Math.round(spent)), budget === null ? 'GPU-seconds spent, no limit' : `of ${count(budget)} GPU-seconds spent`)}
${tile(seconds(timing(request).totalSeconds), 'from start to report')}
</div>`
}
