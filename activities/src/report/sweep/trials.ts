import { clip, h, type Html } from '../html.ts'
import { count, fixed, rate } from '../numbers.ts'
import type { Section } from '../page.ts'
import { badge, note, table, type Column } from '../table.ts'
import { finite, type SweepView, type Trial } from './sweep-view.ts'

const maxRows = 3000

/** Every trial with what it measured, and its page. */
export const trials = (view: SweepView): Section => {
  const shown = view.trials.slice(0, maxRows)
  const body = view.trials.length === 0 ? h`<p class="absent">No trial is on record.</p>` : h`${table<Trial>(
    [
      ...identity,
      { head: 'Added, nats/token', numeric: true, cell: (t) => fixed(t.losses.added, 4) },
      { head: 'Retained, nats/token', numeric: true, cell: (t) => fixed(t.losses.retained, 4) },
      { head: 'Added, nats/byte', numeric: true, cell: (t) => fixed(t.losses.addedPerByte, 4) },
      { head: 'Retained, nats/byte', numeric: true, cell: (t) => fixed(t.losses.retainedPerByte, 4) },
      { head: 'Tokens', numeric: true, cell: (t) => (t.measurement === null ? '–' : count(t.measurement.tokens)) },
      { head: 'GPU-s', numeric: true, cell: (t) => fixed(finite(t.measurement?.gpuSeconds), 1) },
      { head: 'Run', cell: runLink },
    ],
    shown,
  )}
${shown.length < view.trials.length ? note(`The first ${count(maxRows)} of ${count(view.trials.length)} trials are listed.`) : ''}
${note('GPU-seconds are what the training took whoever ran it; what it cost this sweep is in its budget. Only nats per byte compare across tokenizers.')}`
  return { id: 'trials', title: 'Trials', body }
}

/** Trials without a result, and where to look why. */
export const missing = (view: SweepView): Section => {
  const none = view.trials.filter((t) => t.measurement === null)
  const line = (t: Trial): string => view.request.lines.find((l) => l.key === `trial-${t.index}`)?.note ?? ''
  const body = none.length === 0 ? h`<p>Every trial was trained and measured.</p>` : h`${table<Trial>([...identity, { head: 'What is known', cell: line }, { head: 'Run', cell: runLink }], none.slice(0, maxRows))}
${none.length > maxRows ? note(`The first ${count(maxRows)} of ${count(none.length)} are listed.`) : ''}
${note('parked: it waits for a person, on its own page, by the update resolveFailure. unstarted: the sweep ended, or its budget did, before its turn. A sweep of the same grid trains only what is missing.')}`
  return { id: 'missing', title: 'Missing trials', body }
}

export const statusBadge = (status: Trial['status']): Html => badge(status === 'done' ? 'plain' : status === 'failed' ? 'bad' : 'warn', status)

/** The trial's page, or its workflow id where no UI is known; one that never began has neither. */
export const runLink = (t: Trial): Html => (t.status === 'unstarted' ? h`–` : t.page === null ? h`<code>${t.workflowId}</code>` : h`<a class="run" href="${t.page}" title="${t.workflowId}">${clip(t.workflowId.slice(t.workflowId.lastIndexOf('/') + 1) || 'run', 24)}</a>`)

const identity: Column<Trial>[] = [
  { head: '#', numeric: true, cell: (t) => t.index },
  { head: 'ALMR', numeric: true, cell: (t) => t.point.almr },
  { head: 'Peak LR', numeric: true, cell: (t) => rate(t.point.peakLr) },
  { head: 'Seed', numeric: true, cell: (t) => t.point.seed },
  { head: 'Status', cell: (t) => statusBadge(t.status) },
]
