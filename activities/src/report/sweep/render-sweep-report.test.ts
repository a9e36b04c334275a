import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { AlmrLrSweepInput } from '@cpt/contracts/almr-lr-sweep'
import type { SweepReportRequest } from '@cpt/contracts/activities'
import { beforeAll, expect, test } from 'vitest'
import { localDiskStore } from '../../artifact-store/local-disk.ts'
import { loadConfig } from '../../config.ts'
import { resolveSweep } from '../../resolve-sweep.ts'
import { renderSweepReport } from './render-sweep-report.ts'
import { inputOf } from './reproduce.ts'
import { pageOfSample, sampleSweep, type SampleSweep } from './sample-sweep.fixture.ts'
import { extent, parted } from './shades.ts'
import { paretoFront } from './trade-off.ts'

const render = ({ request, source, pageOf }: SampleSweep): string => renderSweepReport(request, source, pageOf)
const textOf = (page: string): string => page.replace(/<style>[^]*?<\/style>|<script>[^]*?<\/script>/g, '').replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' ')
const noFalseNumber = /NaN|undefined|Infinity|\[object/
const drawingsOf = (page: string): string[] => page.match(/<svg [^]*?<\/svg>/g) ?? []
/** The heat maps of a page, each by its cells. */
const mapsOf = (page: string): Map<string, string>[] =>
  (page.match(/<div class="map">[^]*?<\/svg>/g) ?? []).map((svg) => new Map(svg.split('<g data-cell="').slice(1).map((part): [string, string] => [part.slice(0, part.indexOf('"')), part])))
const cellsWith = (map: Map<string, string>, sign: string | RegExp): string[] => [...map].filter(([, svg]) => svg.search(sign) >= 0).map(([key]) => key)
const statesOf = ({ request }: SampleSweep, state: string): string[] => (request.verdict?.cells ?? []).filter((c) => c.state === state).map((c) => `${c.almr} ${c.peakLr}`)

/** One trial waits, one has failed, two of a cell are missing altogether. */
const gaps = { 13: 'parked', 16: 'failed', 22: 'failed', 23: 'unstarted' } as const
let sweep: SampleSweep
let page: string
beforeAll(() => {
  sweep = sampleSweep({ without: gaps })
  page = render(sweep)
})

test('the chosen cell alone is ringed, in both maps, and its ties are ringed with dashes', () => {
  const { chosen, ties } = sweep.request.verdict!
  expect(ties).not.toEqual([])
  expect(mapsOf(page)).toHaveLength(2)
  for (const map of mapsOf(page)) {
    expect(cellsWith(map, 'class="ring"')).toEqual([`${chosen!.almr} ${chosen!.peakLr}`])
    expect(cellsWith(map, 'class="tie"')).toEqual(ties.map((t) => `${t.almr} ${t.peakLr}`))
  }
})

test('infeasible and incomplete cells are hatched, each in its own way, and no others', () => {
  expect([statesOf(sweep, 'infeasible').length, statesOf(sweep, 'incomplete').length].every((n) => n > 1)).toBe(true)
  for (const map of mapsOf(page)) {
    expect(cellsWith(map, /url\(#[a-z-]+-infeasible\)/).sort()).toEqual(statesOf(sweep, 'infeasible').sort())
    expect(cellsWith(map, /url\(#[a-z-]+-incomplete\)/).sort()).toEqual(statesOf(sweep, 'incomplete').sort())
  }
  const patterns = [...page.matchAll(/<pattern id="map-added-(\w+)"[^>]*>([^]*?)<\/pattern>/g)].map((m) => m.slice(1))
  expect(patterns.map(([name]) => name)).toEqual(['infeasible', 'incomplete'])
  expect(patterns[0]![1]).not.toBe(patterns[1]![1])
})

test('what a cell is can be read without colour', () => {
  const [map] = mapsOf(page)
  for (const state of ['control', 'infeasible'] as const) for (const key of statesOf(sweep, state)) expect(textOf(map!.get(key)!)).toContain(state)
  expect(textOf(map!.get('0.5 0.0004')!)).toContain('1 of 2 seeds')
  expect(textOf(map!.get('0.8 0.0025')!)).toContain('no result')
})

test('every cell links to the run of each of its seeds that began, and to nothing else', () => {
  for (const map of mapsOf(page)) for (const [key, svg] of map) {
    const began = sweep.request.trials.filter((t) => `${t.point.almr} ${t.point.peakLr}` === key && t.status !== 'unstarted')
    expect([...svg.matchAll(/<a href="([^"]*)"/g)].map((m) => m[1])).toEqual(began.map((t) => pageOfSample(t.workflowId)))
  }
})

test('a cell says its loss and its change against the base', () => {
  const { cells, base } = sweep.request.verdict!
  const cell = cells.find((c) => c.state === 'feasible')!
  const change = cell.retained!.perToken - base.retained.perToken
  expect(textOf(mapsOf(page)[1]!.get(`${cell.almr} ${cell.peakLr}`)!)).toContain(`${cell.retained!.perToken.toFixed(3)} ${change < 0 ? '−' : '+'}${Math.abs(change).toFixed(3)}`)
})

test('where no UI is known the workflow ids stand as text, and nothing is linked', () => {
  const text = render({ ...sweep, pageOf: () => null })
  expect(text).not.toMatch(/href="(?!#)/)
  for (const t of sweep.request.trials.filter((x) => x.status !== 'unstarted')) expect(textOf(text)).toContain(t.workflowId)
})

test('the page says loudly that the optimum lies at the edge of the grid, and marks the side', () => {
  const at = render(sampleSweep({ tolerance: 0.5 }))
  expect(at).toMatch(/class="alarm warn"[^>]*><strong>At the edge of the grid<\/strong><span>the largest ALMR/)
  expect(at.match(/data-edge="largest-almr"/g)).toHaveLength(2)
  expect(page).not.toContain('data-edge')
})

test('the page says loudly that nothing is feasible, and rings nothing', () => {
  const none = render(sampleSweep({ tolerance: 0, almr: [0.6, 0.8] }))
  expect(none).toMatch(/class="alarm bad"[^>]*><strong>Nothing feasible/)
  expect(none).not.toContain('class="ring"')
})

test('the page says loudly which trials are missing, and where to look why', () => {
  expect(page).toMatch(/class="alarm warn"[^>]*><strong>4 trials missing/)
  const section = textOf(/<section id="missing">[^]*?<\/section>/.exec(page)![0])
  for (const [index, status] of Object.entries(gaps)) expect(section).toMatch(new RegExp(`\\b${index} [\\d. e-]+ ${status}`))
  expect(section).toContain('loss is not finite at step 12')
  expect(render(sampleSweep())).not.toContain('class="alarm')
})

test('that the budget kept trials from beginning is said only where it did', () => {
  const without = { 22: 'unstarted', 23: 'unstarted' } as const
  expect(render(sampleSweep({ without, budget: 245 }))).toContain('Budget spent')
  for (const budget of [10_000, null]) expect(render(sampleSweep({ without, budget }))).not.toContain('Budget spent')
})

test('the ledger stands in numbers: budget, spent, reserved, and what was spent beyond it', () => {
  const { request } = sweep
  const spent = Object.values(request.ledger.spent).reduce((a, b) => a + b, 0)
  expect(textOf(page)).toContain(`Budget 400 GPU-seconds. Spent ${spent.toFixed(0)} GPU-seconds, reserved 12 GPU-seconds`)
  expect(textOf(render(sampleSweep({ budget: 100 })))).toMatch(/Overspent by \d+ GPU-seconds/)
})

test('a sweep that ended without a verdict shows what there is, and says so', () => {
  for (const base of [sweep.request.base, null]) {
    const early = render({ ...sweep, request: { ...sweep.request, verdict: null, verdictRef: null, decisions: [], base } })
    expect(early).toMatch(/class="alarm bad"[^>]*><strong>No verdict/)
    expect(early).not.toContain('class="ring"')
    expect(mapsOf(early)[0]!.size).toBe(sweep.request.verdict!.cells.length)
    expect(textOf(early)).not.toMatch(noFalseNumber)
    expect(textOf(early).includes('the base was not measured')).toBe(base === null)
  }
  const nothing = render({ ...sweep, request: { ...sweep.request, verdict: null, verdictRef: null, base: null, trials: [], lines: [], decisions: [], operator: [], ledger: { budget: null, reserved: {}, spent: {}, settled: [] } } })
  expect(textOf(nothing)).toContain('How to reproduce')
  expect(textOf(nothing)).not.toMatch(noFalseNumber)
})

test('losses that are no numbers, null once they are JSON, leave a page without a false number', () => {
  const { request } = sampleSweep({ without: gaps })
  const broken = { added: { perToken: Number.NaN, perByte: Number.POSITIVE_INFINITY }, retained: { perToken: Number.NaN, perByte: Number.NaN } }
  for (const t of request.trials.slice(0, 8)) if (t.measurement !== null) Object.assign(t.measurement, broken, { gpuSeconds: Number.NaN })
  for (const c of request.verdict!.cells.slice(0, 4)) Object.assign(c, broken)
  request.ledger.spent['0'] = Number.NaN
  for (const told of [request, JSON.parse(JSON.stringify(request)) as SweepReportRequest]) {
    const text = textOf(render({ ...sweep, request: { ...told, lines: [] } }))
    expect(text.replace(/<pre>[^]*?<\/pre>/g, '')).not.toMatch(noFalseNumber)
    const early = textOf(render({ ...sweep, request: { ...told, lines: [], verdict: null, base: broken } }))
    expect(early).not.toMatch(noFalseNumber)
  }
})

test('a grid of one cell and one seed has a page', () => {
  const one = sampleSweep({ almr: [0.3], peakLrs: [1e-3], seeds: [1] })
  one.request.verdict = { ...one.request.verdict!, standardDeviation: { added: null, retained: null } }
  const text = render(one)
  expect(mapsOf(text).map((m) => [...m.keys()].sort())).toEqual([['0 0.001', '0.3 0.001'], ['0 0.001', '0.3 0.001']])
  expect(textOf(text)).not.toMatch(noFalseNumber)
  expect(textOf(text)).not.toContain('pooled standard deviation')
})

test('a grid of 51 × 50 cells is drawn whole, and what is left out is said', () => {
  const steps = (count: number, of: (i: number) => number) => Array.from({ length: count }, (_, i) => of(i))
  const large = sampleSweep({ almr: steps(50, (i) => (i + 1) / 50), peakLrs: steps(50, (i) => 1e-4 * 1.08 ** i), seeds: [1, 2] })
  const text = render(large)
  for (const map of mapsOf(text)) {
    expect(map.size).toBe(2550)
    // too many runs to link each of them
    for (const svg of map.values()) expect(svg.match(/<a href=/g)).toHaveLength(1)
  }
  expect(textOf(text)).toContain('Of 5,100 trials only the first of each cell is linked')
  expect(textOf(text)).toContain('The first 3,000 of 5,100 trials are listed')
  expect(textOf(text)).toMatch(/\d+ of 5,100 trained trials are drawn/)
  expect(text.length).toBeLessThan(12e6)
}, 120_000)

test('the curves of trials are drawn where they were found, and missed where not', () => {
  expect(textOf(page)).toContain('Training loss of each trial')
  expect(textOf(page)).toContain('4 trials without a result have no curve')
  const [lost] = sweep.source.curves.keys()
  const curves = new Map([...sweep.source.curves].filter(([f]) => f !== lost))
  expect(textOf(render({ ...sweep, source: { ...sweep.source, curves } }))).toContain('The curves of 1 trial were not found')
  expect(textOf(render({ ...sweep, source: { ...sweep.source, curves: new Map() } }))).toContain('No training curve to show: the curve files were not found')
})

test('every drawing is well-formed XML, hostile names or not', () => {
  const read = 'import sys, json, xml.etree.ElementTree as e\nprint(sum(1 for svg in json.load(sys.stdin) for _ in e.fromstring(svg).iter()))'
  const drawings = [...drawingsOf(page), ...drawingsOf(render(hostile()))]
  expect(drawings.length).toBeGreaterThan(10)
  const elements = execFileSync(loadConfig({}).python, ['-c', read], { input: JSON.stringify(drawings), encoding: 'utf8', shell: false })
  expect(Number(elements)).toBeGreaterThan(1000)
})

const evil = `"><script>alert(1)</script>'<img src=x onerror=alert(2)></title></style>]]>--><a href="https://evil.test">\u202Egpj\u001b[31m\ud800`
const free = new Set(['name', 'description', 'owner', 'workflowId', 'runId', 'words', 'note', 'reason', 'by', 'stage', 'key', 'uri', 'model', 'order'])
const poison = (value: unknown, field = ''): unknown => {
  if (typeof value === 'string') return free.has(field) ? value + evil : value
  if (Array.isArray(value)) return value.map((v) => poison(v, field))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, poison(v, k)]))
}
const hostile = (): SampleSweep => ({ ...sweep, request: poison(sweep.request) as SweepReportRequest })

test('hostile text stays text, in the page, in its drawings and in its links', () => {
  const text = render(hostile())
  expect(textOf(text)).toContain('&lt;script&gt;alert(1)&lt;/script&gt;')
  expect(text.match(/<script/g)).toHaveLength(1)
  expect(text.match(/<style/g)).toHaveLength(1)
  const tags = text.replace(/(<style>)[^]*?(<\/style>)|(<script>)[^]*?(<\/script>)/g, '').match(/<[^>]*>/g) ?? []
  expect(tags.filter((t) => /^<img|\son[a-z]+\s*=/i.test(t.replace(/="[^"]*"/g, '=""')))).toEqual([])
  for (const tag of tags) for (const [, to] of tag.matchAll(/\shref="([^"]*)"/g)) expect(to).toMatch(/^#[a-z-]+$|^http:\/\/127\.0\.0\.1:8233\/namespaces\/cpt\/workflows\/(?:[\w%.!~*()-]|&#39;)+$/)
  expect(text).not.toMatch(/(?![\t\n\r\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}]/u)
})

test('the page loads nothing from outside and forbids it', () => {
  expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-`)
  expect(page).not.toMatch(/@import|url\((?!#)|\s(?:src|action|poster|srcset|xlink:href)=/)
})

test('the same sweep gives the same bytes', () => {
  expect(render(sampleSweep({ without: gaps }))).toBe(page)
})

test('the input that the page gives asks for exactly the same sweep', async () => {
  const config = loadConfig({})
  const resolve = resolveSweep({ config, store: localDiskStore({ ...config.roots, store: join(config.home, 'nothing-is-stored') }) })
  const resolved = await resolve({ name: 'again', grid: { almr: [0.3] }, retained: { en: 1 }, run: { training: { optimizer: { beta2: 0.99 } } } })
  const input = inputOf(resolved)
  expect(await resolve(AlmrLrSweepInput.parse(JSON.parse(JSON.stringify(input))))).toEqual(resolved)
})

test('the front holds what nothing beats in both, from the least forgetting on', () => {
  expect(paretoFront([[0.1, 0.5], [0, 0.2], [0.1, 0.7], [0.2, 0.6], [0.05, 0.1]])).toEqual([[0, 0.2], [0.1, 0.7]])
})

test('one training that diverged does not make all other cells look alike', () => {
  expect(extent([4.1, 4.2, 4.15, 4.3, 11, Number.NaN])).toEqual({ low: 4.1, high: 4.3, isCut: true })
  expect(extent([4, 11])).toEqual({ low: 4, high: 11, isCut: false })
})

test('what is allowed and what is not differ in colour however near the bound', () => {
  const { of } = parted([4, 4.5], 4.3)
  expect(of(4.3)).toContain('heat')
  expect(of(4.3001)).toContain('lost')
})
