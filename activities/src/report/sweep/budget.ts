import type { Ledger } from '@cpt/contracts/sweep'
import { h, type Html } from '../html.ts'
import type { Section } from '../page.ts'
import { count, percent, seconds } from '../numbers.ts'
import { figure, note, table } from '../table.ts'
import { finite, type SweepView } from './sweep-view.ts'

/** GPU-seconds of a sweep: its limit (null: none), what was debited, what is still held. */
export const budgetOf = ({ budget, spent, reserved }: Ledger): { budget: number | null; spent: number; held: number } => ({ budget, spent: total(spent), held: total(reserved) })

const total = (amounts: Readonly<Record<string, number>>): number => Object.values(amounts).reduce((sum, n) => sum + (finite(n) || 0), 0)

/** What the sweep was allowed, what its trials took, and what is held for those that are open. */
export const budget = (view: SweepView): Section => {
  const { ledger } = view.request
  const { budget: limit, spent, held } = budgetOf(ledger)
  const whole = Math.max(limit ?? 0, spent + held, Number.MIN_VALUE)
  const dearest = view.trials.map((t) => ({ trial: t, spent: finite(ledger.spent[t.index]) })).filter((t) => t.spent > 0).sort((a, b) => b.spent - a.spent || a.trial.index - b.trial.index).slice(0, 10)
  const body = h`
<p>${limit === null ? h`No limit was set. ` : h`Budget ${gpu(limit)}. `}Spent ${gpu(spent)}, reserved ${gpu(held)}${limit === null ? '' : h`, free ${gpu(Math.max(0, limit - spent - held))}`}.${limit !== null && spent > limit ? h` <strong class="bad">Overspent by ${gpu(spent - limit)}: trials that had begun took more than was held for them.</strong>` : ''}</p>
${figure('GPU-seconds', h`<div class="ledger" role="img" aria-label="${`Spent ${count(Math.round(spent))}, reserved ${count(Math.round(held))}${limit === null ? ', no limit' : ` of ${count(Math.round(limit))}`}`}"><i class="spent" style="--w:${share(spent / whole)}%"></i><i class="held" style="--w:${share(held / whole)}%"></i>${limit === null ? '' : h`<b style="--m:${share(limit / whole)}%"></b>`}</div>
<ul class="legend"><li><i class="box" style="--k:var(--c1)"></i>spent ${percent(spent / whole)}</li><li><i class="box held"></i>reserved ${percent(held / whole)}</li>${limit === null ? '' : h`<li><i class="tick"></i>budget</li>`}</ul>`)}
${dearest.length === 0 ? h`<p class="absent">No trial has cost this sweep anything.</p>` : table(
  [
    { head: 'Dearest trials', cell: ({ trial }) => `trial ${trial.index}` },
    { head: 'GPU-seconds', numeric: true, cell: (t) => t.spent.toFixed(1) },
    { head: 'Of all spent', numeric: true, cell: (t) => percent(t.spent / spent) },
    { head: 'Account', cell: ({ trial }) => (ledger.settled.includes(trial.index) ? 'settled' : trial.index in ledger.reserved ? `open, ${seconds(finite(ledger.reserved[trial.index]))} held` : 'open') },
  ],
  dearest,
)}
${note('On a CPU a GPU-second is a second of a job. A trial whose training an earlier sweep had done costs nothing.')}`
  return { id: 'budget', title: 'Budget', body }
}

const gpu = (n: number): Html => h`${count(Math.round(n))} GPU-seconds`
const share = (part: number): string => (Math.max(0, Math.min(1, part)) * 100).toFixed(2)
