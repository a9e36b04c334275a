import type { Decision } from '@cpt/contracts/cpt-run'
import { h } from '../html.ts'
import { count, utc } from '../numbers.ts'
import type { Section } from '../page.ts'
import { table } from '../table.ts'
import { gantt } from '../time.ts'
import type { SweepView } from './sweep-view.ts'

/** What people decided on the sweep, what it mended by itself, and what ran when. */
export const decisions = (view: SweepView): Section => {
  const { operator, lines, startedAtMs } = view.request
  // how long a trial took is on its own page
  const timed = lines.filter((l) => l.stage !== 'trial' || l.seconds > 0)
  const retried = lines.filter((l) => l.attempts > 1)
  const body = h`
${operator.length === 0 ? h`<p>No person had to decide anything on the sweep itself; what was decided on a trial is on the trial’s page.</p>` : table<Decision>(
  [
    { head: 'When', cell: (d) => utc(d.atMs) },
    { head: 'Stage', cell: (d) => d.stage },
    { head: 'Park', numeric: true, cell: (d) => count(d.park) },
    { head: 'Action', cell: (d) => d.action },
    { head: 'By', cell: (d) => d.by },
    { head: 'Reason', cell: (d) => d.reason },
    { head: 'Patch', code: true, cell: (d) => (d.patch === undefined || d.patch === null ? '–' : JSON.stringify(d.patch)) },
  ],
  operator,
)}
${retried.length === 0 ? '' : h`<ul>${retried.map((l) => h`<li><code>${l.key}</code> took ${count(l.attempts)} attempts${l.note === '' ? '' : `: ${l.note}`}.</li>`)}</ul>`}
<h3>What ran when</h3>
${timed.length === 0 ? h`<p class="absent">No stage is on record.</p>` : gantt(timed, startedAtMs)}`
  return { id: 'decisions', title: 'Decisions and time', body }
}
