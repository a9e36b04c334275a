import type { ReapReport } from '@cpt/contracts/activities'
import type { LiveProgress, Parked, RunProgress } from '@cpt/contracts/cpt-run'

/** The UI draws table cells without any space between them; a plain space at a cell's end is not drawn. */
const gap = '\u00a0\u00a0 '

/** The run page's text: what runs, how far, and when something is parked what to press. Markdown, shown by the UI. */
export const pageText = (state: RunProgress, { workflowId, namespace }: { workflowId: string; namespace: string }, extra: readonly string[]): string => {
  const running = state.stages.filter((s) => s.state === 'running')
  const paused = state.stages.filter((s) => s.state === 'paused')
  const done = state.stages.filter((s) => s.state === 'done' || s.state === 'reused' || s.state === 'skipped')
  const over = state.stages.filter((s) => done.includes(s) || s.state === 'failed')
  return [
    ...state.parked.flatMap((p) => parkedText(p, workflowId)),
    ...(state.asks?.lines ?? []),
    ...(state.waits ?? []).flatMap((w) => waitsText(w, namespace)),
    `**${headline(state)}** · ${number(done.length, 'stage', 'stages')} done · ${number(state.recoveries, 'recovery', 'recoveries')}${state.paused && state.status === 'parked' ? ' · paused: nothing new begins until the update `resume`' : ''}`,
    '',
    ...running.map((s) => `- \`${s.key}\` ${liveText(state.live?.key === s.key ? state.live : null)}${s.note === '' ? '' : ` · ${plain(s.note)}`}`),
    ...paused.map((s) => `- \`${s.key}\` ${plain(s.note)}`),
    '',
    ...extra,
    '',
    '| stage | result | state | seconds |',
    '|---|---|---|---:|',
    ...over.slice(-40).map((s) => `| \`${s.key}\`${gap}| ${plain(s.note)}${gap}| ${s.state}${gap}| ${s.seconds.toFixed(1)} |`),
  ].join('\n')
}

const number = (n: number, one: string, many: string): string => `${n} ${n === 1 ? one : many}`

const headline = (state: RunProgress): string => {
  switch (state.status) {
    case 'parked': return `Waiting for a person at ${[...(state.asks === undefined ? [] : [state.asks.update]), ...state.parked.map((p) => p.stage), ...(state.waits ?? []).map((w) => plain(w.workflowId))].join(', ')}`
    case 'paused': return 'Paused; send the update `resume` to go on'
    case 'running': return state.current === '' ? 'Starting: the input is completed, its files are looked for' : `Running ${state.current}`
    case 'done': return 'Done'
    case 'failed': return 'Ended without a result'
  }
}

const liveText = (live: LiveProgress | null): string => {
  if (live === null) return 'starting'
  const parts = [live.phase, live.total > 0 ? `${Math.round((100 * live.done) / live.total)} %` : '']
  if (live.step !== null) parts.push(`step ${live.step}`)
  if (live.loss !== null) parts.push(`loss ${live.loss.toFixed(3)}`)
  if (live.tokensPerSecond !== null) parts.push(`${Math.round(live.tokensPerSecond)} tokens/s`)
  if (live.etaSeconds !== null) parts.push(`${Math.ceil(live.etaSeconds)} s left`)
  if (live.estimate !== undefined) parts.push(estimateText(live.estimate))
  return parts.filter((p) => p !== '').join(' · ')
}

const estimateText = ({ flop, seconds, gpuHours }: NonNullable<LiveProgress['estimate']>): string =>
  `estimated beforehand: ${flop > 0 ? `${flop.toExponential(1)} FLOP, ` : ''}${Math.ceil(seconds)} s${gpuHours > 0 ? `, ${gpuHours.toPrecision(2)} GPU-hours` : ''}`

const parkedText = (p: Parked, workflowId: string): string[] => {
  const answer = { stage: p.stage, park: p.park, action: p.actions[0], reason: '' }
  return [
    `### Parked: ${plain(p.stage)} (${p.type})`,
    '',
    plain(p.message),
    '',
    `Likely cause: ${p.cause}`,
    `Suggested: ${p.suggest}.`,
    '',
    `Open **More Actions** above, press **Send an Update**, choose \`resolveFailure\`, and paste (action is one of ${p.actions.join(', ')}):`,
    '```json',
    JSON.stringify(answer, null, 2),
    '```',
    'or run',
    '```sh',
    resolveCommand(workflowId, p),
    '```',
    ...(p.logTail.length === 0 ? [] : ['', 'Last lines of the log:', '```', ...p.logTail.map((l) => oneLine(l).replaceAll('`', "'")), '```']),
    '',
  ]
}

/** What waits on another page, with the way there and what to press. */
const waitsText = (w: NonNullable<RunProgress['waits']>[number], namespace: string): string[] => [
  `### Waits for a person: ${plain(w.workflowId)} at ${plain(w.stage)} (${w.type})`,
  '',
  plain(w.message),
  '',
  `Likely cause: ${w.cause}`,
  `Suggested: ${w.suggest}.`,
  '',
  `On [its page](/namespaces/${encodeURIComponent(namespace)}/workflows/${encodeURIComponent(w.workflowId)}), **More Actions**, **Send an Update**, \`resolveFailure\`, paste (action is one of ${w.actions.join(', ')}):`,
  '```json',
  JSON.stringify({ stage: w.stage, park: w.park, action: w.actions[0], reason: '' }, null, 2),
  '```',
  'or run',
  '```sh',
  resolveCommand(w.workflowId, w),
  '```',
  '',
]

const resolveCommand = (workflowId: string, { stage, park, actions }: Pick<Parked, 'stage' | 'park' | 'actions'>): string =>
  `npx cpt resolve ${argument(workflowId)} --stage ${argument(stage)} --park ${park} --action ${actions[0] ?? 'retry'}`

/** What the reaper's page says. */
export const reaperText = ({ looked, stopped, left }: ReapReport, trials: readonly string[] = []): string => [
  `**${stopped.length === 0 ? 'Nothing to stop' : `Stopped ${stopped.length}`}** of ${looked} jobs without an end${trials.length === 0 ? '' : `, cancelled ${number(trials.length, 'trial', 'trials')} of closed sweeps`}`,
  '',
  ...trials.slice(0, 100).map((t) => `- cancelled: ${plain(t)}`),
  ...[...stopped.map((s) => ({ ...s, done: 'stopped' })), ...left.map((l) => ({ ...l, done: 'left alone' }))]
    .slice(0, 100)
    .map(({ job, askedBy, why, done }) => `- ${done}: \`${job}\`, asked for by ${plain(askedBy.join(', '))}: ${plain(why)}`),
].join('\n')

/** Text from outside, so that it stays one line and marks nothing up. */
export const plain = (text: string): string =>
  oneLine(text.slice(0, 1500).replaceAll('\n', ' · '))
    .trim()
    .replace(/[\\`*_{}[\]<>|~#&!]/g, (c) => `\\${c}`)
    .replace(/^[-+=]/, String.raw`\$&`)
    .replace(/^\d+(?=[.)])/, '$&\\')

/** A word of a shell command that can be pasted as it stands: workflow ids typed in the UI are free text. */
export const argument = (text: string): string => {
  const safe = oneLine(text).replaceAll('`', ' ')
  return /^[\w./:@-]+$/.test(safe) ? safe : `'${safe.replaceAll("'", String.raw`'\''`)}'`
}

/** Line breaks, escape sequences and marks that turn the direction of reading become spaces. */
const oneLine = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, ' ')
