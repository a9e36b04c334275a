import type { LiveProgress, Parked, StageLine } from '@cpt/contracts/cpt-run'
import { plainText } from '../plain-text.ts'

const marks = { running: '▸', done: '✓', reused: '↺', skipped: '–', parked: '!', paused: '‖', failed: '✗' } as const satisfies Record<StageLine['state'], string>

/** 8.4 s, 3:07, 2:03:07 */
export const duration = (seconds: number): string => {
  if (seconds < 60) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  const two = (n: number) => String(n).padStart(2, '0')
  const hours = Math.floor(whole / 3600)
  const minutes = Math.floor((whole % 3600) / 60)
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`
}

/** 950, 12.3k, 4.56M */
export const quantity = (n: number): string => (n < 1000 ? String(Math.round(n)) : n < 1e6 ? `${(n / 1e3).toPrecision(3)}k` : n < 1e9 ? `${(n / 1e6).toPrecision(3)}M` : `${(n / 1e9).toPrecision(3)}G`)

/** One running stage: what it does, how far it is, and the numbers of training. */
export const liveWords = (live: LiveProgress): string => {
  const parts = [plainText(live.key)]
  if (live.phase !== '' && live.phase !== live.key) parts.push(plainText(live.phase))
  if (live.step !== null) parts.push(`step ${live.step}`)
  if (live.total > 0) parts.push(`${Math.min(100, Math.floor((100 * live.done) / live.total))}%`)
  if (live.loss !== null) parts.push(`loss ${live.loss.toFixed(3)}`)
  if (live.tokensPerSecond !== null) parts.push(`${quantity(live.tokensPerSecond)} tokens/s`)
  if (live.etaSeconds !== null) parts.push(`ETA ${duration(live.etaSeconds)}`)
  if (live.attempts > 1) parts.push(`attempt ${live.attempts}`)
  return parts.join('  ')
}

/** The line of a stage that has ended. */
export const stageWords = (line: StageLine): string => {
  const time = line.state === 'reused' ? 'reused' : line.state === 'skipped' ? 'skipped' : duration(line.seconds)
  const more = [line.attempts > 1 ? `${line.attempts} attempts` : '', plainText(line.note).replaceAll('\n', ' ').slice(0, 160)].filter((s) => s !== '')
  return `${marks[line.state]} ${plainText(line.key).padEnd(32)} ${time.padStart(8)}${more.length > 0 ? `   ${more.join(' · ')}` : ''}`
}

/** What a person needs when a stage waits for them. */
export const parkedWords = (parked: Parked, named: string, page: string | null): string => {
  const command = (action: string) => `  npx cpt resolve ${quoted(named)} --stage ${quoted(parked.stage)} --park ${parked.park} --action ${action}`
  const log = parked.logTail.length === 0 ? [] : ['  last words of the job:', ...parked.logTail.map((line) => `    ${plainText(line).slice(0, 200)}`)]
  return [
    `! ${plainText(parked.stage)} waits for a decision: ${parked.type}`,
    ...plainText(parked.message).split('\n').map((line) => `  ${line}`),
    `  likely cause: ${plainText(parked.cause)}`,
    `  try first: ${plainText(parked.suggest)}`,
    ...log,
    '  decide (in another terminal):',
    ...parked.actions.map(command),
    ...(page === null ? [] : [`  or on the run's page: ${page}`]),
  ].join('\n')
}

const quoted = (text: string): string => (/^[\w./@:-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`)
