import type { Decision } from '@cpt/contracts/cpt-run'
import { h, type Html } from './html.ts'
import { count, plural, utc } from './numbers.ts'
import type { Section } from './page.ts'
import { table } from './table.ts'
import type { View } from './view.ts'

/** What people decided, each with who and why. */
export const decisionsTable = (decisions: readonly Decision[], options?: Parameters<typeof table<Decision>>[2]): Html =>
  table<Decision>(
    [
      { head: 'When', cell: (d) => utc(d.atMs) },
      { head: 'Stage', cell: (d) => d.stage },
      { head: 'Park', numeric: true, cell: (d) => count(d.park) },
      { head: 'Action', cell: (d) => d.action },
      { head: 'By', cell: (d) => d.by },
      { head: 'Reason', cell: (d) => d.reason },
      { head: 'Patch', code: true, cell: (d) => (d.patch === undefined || d.patch === null ? '–' : JSON.stringify(d.patch)) },
    ],
    decisions,
    options,
  )

/** What people decided, and what the run mended by itself. */
export const operator = (view: View): Section => {
  const { operator: decisions, lines } = view.request
  const retried = lines.filter((l) => l.attempts > 1)
  const restarts = view.rounds.flatMap((r) => (r.train?.restarts ?? []).map((x) => ({ round: r.label, ...x })))
  const unfinished = lines.filter((l) => l.state === 'skipped' || l.state === 'failed' || l.state === 'parked')
  const body = h`
${
  decisions.length === 0
    ? h`<p>No person had to decide anything.</p>`
    : decisionsTable(decisions, { caption: 'Decisions of operators' })
}
${
  retried.length === 0 && restarts.length === 0
    ? h`<p>Every job ended at its first attempt.</p>`
    : h`<h3>Recoveries</h3><ul>${retried.map((l) => h`<li><code>${l.key}</code> took ${plural(l.attempts, 'attempt')}${l.note === '' ? '' : `: ${l.note}`}.</li>`)}${restarts.map((r) => h`<li>${r.round}: training went on at step ${count(r.step)} (attempt ${count(r.attempt)}).</li>`)}</ul>`
}
${unfinished.length === 0 ? '' : h`<h3>Not done</h3><ul>${unfinished.map((l) => h`<li><code>${l.key}</code> is ${l.state}${l.note === '' ? '' : `: ${l.note}`}.</li>`)}</ul>`}`
  return { id: 'operator', title: 'Decisions and recoveries', body }
}
