import { constants } from 'node:os'
import type { EndRecord, Placement } from '@cpt/contracts/job'

/** All that is known of how a job ended. */
export interface Ending {
  end: EndRecord
  /** The last lines of its log, control characters removed. */
  log: string[]
  /** What the watcher told the job before it ended: to stop, or to stop because it stood still. */
  told: 'stop' | 'stuck' | null
  placement: Placement
}

/** What the rules of classify-failure.ts look at. */
export interface Evidence {
  end: EndRecord
  told: Ending['told']
  schedulerState: string
  schedulerReason: string
  /** Signals that ended a process of the job, from whoever says so. */
  signals: string[]
  /** The job's message and what its log says of errors: no warnings, no source lines, no quoted names. */
  lines: string[]
  /** The same with quoted names. */
  rawLines: string[]
}

/** Sorts the evidence of an end: what is only mentioned in a log is kept apart from what happened. */
export const readLog = ({ end, log, told }: Ending): Evidence => {
  const rawLines = [...end.message.split('\n'), ...log.filter((line, i) => isAboutErrors(line) && !isSourceLine(log, i))]
  const lines = rawLines.map(withoutQuoted)
  const schedulerReason = end.scheduler?.reason ?? ''
  return { end, told, schedulerState: end.scheduler?.state ?? '', schedulerReason, signals: signalsOf(end, schedulerReason, lines), lines, rawLines }
}

const isAboutErrors = (line: string): boolean => {
  // one of our own structured lines: what it says of an end is in the end record
  if (/^\s*\{.*"event":/.test(line)) return false
  if (/giv(ing|en) up|retries exceeded|retry count exceeded|reached max retries|no more retries|after \d+ retries/i.test(line)) return true
  if (/\bNCCL WARN\b/.test(line)) return true
  return !/\b(WARN|WARNING|INFO|DEBUG|NOTICE)\b|Warning:|\[[WI]\d{4} |^[WI]\d{4} |retry|attempt \d+ of \d+|\bignored\b/i.test(line)
}

/** In a traceback the line after `File "…", line n` is source text, not what happened. */
const isSourceLine = (log: string[], i: number): boolean => /^\s*File ".*", line \d+/.test(log[i] ?? '') || (/^\s*File ".*", line \d+/.test(log[i - 1] ?? '') && /^\s{4}/.test(log[i] ?? ''))

/** Names of files and documents may contain any words. Slurm, NCCL and glibc quote what they mean. */
const withoutQuoted = (line: string): string =>
  /Cuda failure|instance of/.test(line) ? line : line.replace(/(?<=^|[\s:=(,[])(['"])(?:.*?)\1(?=$|[\s:;),.\]])/g, '…')

const names = Object.fromEntries(Object.entries(constants.signals).reverse().map(([name, number]) => [number, name]))

const signalsOf = (end: EndRecord, reason: string, lines: string[]): string[] => {
  const numbers = [
    end.exitCode !== null && end.exitCode > 128 && end.exitCode < 160 ? end.exitCode - 128 : end.exitCode !== null && end.exitCode < 0 ? -end.exitCode : 0,
    Number(end.scheduler?.exitCode.split(':')[1] ?? 0),
    Number(/^RaisedSignal:(\d+)/.exec(reason)?.[1] ?? 0),
    ...lines.map((line) => Number(/exitcode\s*: -(\d+)/.exec(line)?.[1] ?? /(?:Signal|got signal:) (\d+)/.exec(line)?.[1] ?? 0)),
    ...lines.map((line) => (/^(.*: line \d+: +\d+ )?Killed\b|killed by signal: Killed/.test(line) ? constants.signals.SIGKILL : 0)),
  ]
  const told = lines.flatMap((line) => /died with <Signals\.(SIG[A-Z0-9]+)/.exec(line)?.[1] ?? [])
  return [...new Set([...(end.signal === null ? [] : [end.signal]), ...told, ...numbers.flatMap((n) => names[n] ?? [])])]
}
