import type { StageLine } from '@cpt/contracts/cpt-run'
import { categoryAxis, chart, ink, legend, valueAxis } from './chart.ts'
import { clip, h, type Html } from './html.ts'
import { count, percent, plural, seconds, utc } from './numbers.ts'
import type { Section } from './page.ts'
import { badge, details, figure, note, table } from './table.ts'
import { timing } from './timing.ts'
import { recordOf, type View } from './view.ts'

const maxRows = 90

/** When each stage ran, what was reused, and how long nothing computed. */
export const time = (view: View): Section => {
  const { request } = view
  const t = timing(request)
  const reused = request.lines.filter((l) => l.state === 'reused').length
  const body =
    request.lines.length === 0
      ? h`<p class="absent">No stage is on record.</p>`
      : h`<p>The run took ${seconds(t.totalSeconds)} from ${utc(request.startedAtMs)}. Jobs computed for ${seconds(t.busySeconds)} of it; for ${seconds(t.totalSeconds - t.busySeconds)}, ${percent(t.idleShare)}, none did. ${reused === 0 ? 'Nothing was reused from an earlier run.' : `Reused from an earlier run: ${count(reused)} of ${plural(request.lines.length, 'stage')}.`}</p>
${figure('Stages over time', h`${legend([{ name: 'a job computes', colour: ink.accent }, { name: 'waiting and starting', colour: ink.accent, opacity: 0.3 }, { name: 'reused', colour: 'var(--c8)', shape: 'dot' }])}${gantt(request.lines, request.startedAtMs)}`)}
${details('Every stage in numbers', lineTable(view))}
${note('A line knows when it began and how long its job ran; its waiting is drawn first. Benchmarks run beside training, so lines overlap.')}`
  return { id: 'time', title: 'Time by stage', body }
}

/** What ran when; of many lines the longest. */
export const gantt = (lines: readonly StageLine[], startMs: number): Html => {
  const inOrder = [...lines].sort((a, b) => a.startedAtMs - b.startedAtMs)
  const longest = new Set([...lines].sort((a, b) => b.seconds - a.seconds).slice(0, maxRows))
  const shown = inOrder.filter((l) => longest.has(l))
  const unit = Math.max(...shown.map((l) => (l.startedAtMs - startMs) / 1000 + l.seconds)) > 900 ? { name: 'minutes since the start', seconds: 60 } : { name: 'seconds since the start', seconds: 1 }
  const job = (l: StageLine): number => (l.state === 'reused' ? 0 : Math.min(l.jobSeconds, l.seconds))
  const stack = { type: 'bar', stack: 'all', barWidth: 11 }
  return h`${chart('time', shown.map((l) => `${l.key} ${seconds(l.seconds)}`).join(', '), 50 + shown.length * 19, {
    grid: { left: 250, right: 80, top: 4, bottom: 44 },
    xAxis: valueAxis(unit.name, { min: 0 }),
    yAxis: categoryAxis(shown.map((l) => clip(l.key, 38)), { inverse: true, axisLine: { show: false } }),
    series: [
      { ...stack, itemStyle: { color: 'transparent' }, data: shown.map((l) => Math.max(0, l.startedAtMs - startMs) / 1000 / unit.seconds) },
      { ...stack, itemStyle: { color: ink.accent, opacity: 0.3 }, data: shown.map((l) => (l.state === 'reused' ? 0 : (l.seconds - job(l)) / unit.seconds)) },
      {
        ...stack,
        itemStyle: { color: ink.accent },
        label: { show: true, position: 'right', color: ink.soft, fontSize: 11, formatter: (p: { dataIndex: number }) => caption(shown[p.dataIndex]) },
        data: shown.map((l) => job(l) / unit.seconds),
      },
      { type: 'scatter', symbolSize: 7, itemStyle: { color: 'var(--c8)' }, data: shown.flatMap((l, i) => (l.state === 'reused' ? [[Math.max(0, l.startedAtMs - startMs) / 1000 / unit.seconds, i]] : [])) },
    ],
  })}${shown.length < lines.length ? note(`The ${maxRows} longest of ${lines.length} lines are drawn.`) : ''}`
}

const caption = (l: StageLine | undefined): string => (l === undefined ? '' : l.state === 'reused' ? '  reused' : l.state === 'done' ? seconds(l.seconds) : `${seconds(l.seconds)} ${l.state}`)

const lineTable = (view: View): Html =>
  table<StageLine>(
    [
      { head: 'Line', cell: (l) => l.key },
      { head: 'State', cell: (l) => badge(l.state === 'parked' || l.state === 'failed' ? 'bad' : l.state === 'skipped' ? 'warn' : 'plain', l.state) },
      { head: 'Began after', numeric: true, cell: (l) => seconds(Math.max(0, l.startedAtMs - view.request.startedAtMs) / 1000) },
      { head: 'Took', numeric: true, cell: (l) => seconds(l.seconds) },
      { head: 'Job', numeric: true, cell: (l) => (l.state === 'reused' ? '–' : seconds(l.jobSeconds)) },
      { head: 'Attempts', numeric: true, cell: (l) => count(l.attempts) },
      { head: 'Record', cell: (l) => (recordOf(view, l.key) === null ? badge('warn', 'missing') : 'found') },
      { head: 'Note', cell: (l) => l.note },
    ],
    view.request.lines,
  )
