import { h } from '../html.ts'
import { count } from '../numbers.ts'
import { decisionsTable } from '../operator.ts'
import type { Section } from '../page.ts'
import { gantt } from '../time.ts'
import type { SweepView } from './sweep-view.ts'

/** What people decided on the sweep, what it mended by itself, and what ran when. */
export const decisions = (view: SweepView): Section => {
  const { operator, lines, startedAtMs } = view.request
  // how long a trial took is on its own page
  const timed = lines.filter((l) => l.stage !== 'trial' || l.seconds > 0)
  const retried = lines.filter((l) => l.attempts > 1)
  const body = h`
${operator.length === 0 ? h`<p>No person had to decide anything on the sweep itself; what was decided on a trial is on the trial’s page.</p>` : decisionsTable(operator)}
${retried.length === 0 ? '' : h`<ul>${retried.map((l) => h`<li><code>${l.key}</code> took ${count(l.attempts)} attempts${l.note === '' ? '' : `: ${l.note}`}.</li>`)}</ul>`}
<h3>What ran when</h3>
${timed.length === 0 ? h`<p class="absent">No stage is on record.</p>` : gantt(timed, startedAtMs)}`
  return { id: 'decisions', title: 'Decisions and time', body }
}
