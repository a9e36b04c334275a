import type { ReportRequest } from '@cpt/contracts/activities'

/**
 * Wall time of a run, and the share of it in which no job computed. A line knows when it began and how long its job
 * ran, not when in between: the job is placed at the end, because waiting and starting come first.
 */
export const timing = (request: Pick<ReportRequest, 'lines' | 'startedAtMs'>): { totalSeconds: number; busySeconds: number; idleShare: number } => {
  const end = Math.max(request.startedAtMs, ...request.lines.map((l) => l.startedAtMs + l.seconds * 1000))
  const spans = request.lines
    .filter((l) => l.state !== 'reused')
    .map((l) => ({ from: l.startedAtMs + (l.seconds - Math.min(l.jobSeconds, l.seconds)) * 1000, to: l.startedAtMs + l.seconds * 1000 }))
    .sort((a, b) => a.from - b.from)
  let busyMs = 0
  let covered = request.startedAtMs
  for (const { from, to } of spans) {
    busyMs += Math.max(0, to - Math.max(from, covered))
    covered = Math.max(covered, to)
  }
  const totalMs = end - request.startedAtMs
  return { totalSeconds: totalMs / 1000, busySeconds: busyMs / 1000, idleShare: totalMs === 0 ? 0 : 1 - busyMs / totalMs }
}
