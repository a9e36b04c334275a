import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { parse } from 'yaml'
import { schedulesAsCode } from './apply.ts'
import { checkSchedule, readSchedule } from './schedule-file.ts'

const home = fileURLToPath(new URL('../../..', import.meta.url))
const shipped = join(home, 'infra/schedules')
const nightly = parse(readFileSync(join(shipped, 'nightly-sweep.yaml'), 'utf8')) as Record<string, unknown>
const policies = nightly['policies'] as Record<string, unknown>
const pathsOf = (over: Record<string, unknown>): string[] => (checkSchedule({ ...nightly, ...over }).problems ?? []).map((p) => p.path).sort()
const without = (fields: Record<string, unknown>, key: string) => Object.fromEntries(Object.entries(fields).filter(([k]) => k !== key))

let folder: string
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'cpt-schedules-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test('every shipped schedule is one that can be applied, its input checked with its workflow’s own schema', () => {
  const names = readdirSync(shipped)
  expect(names).toContain('nightly-sweep.yaml')
  expect(schedulesAsCode(home, undefined).map((s) => s.file)).toEqual(names.sort())
})

test.each(['overlap', 'catchupWindow', 'pauseOnFailure'])('%s has no silent default', (key) => {
  expect(pathsOf({ policies: without(policies, key) })).toEqual([`policies.${key}`])
})

test.each(['id', 'workflow', 'calendars', 'timeZone', 'policies', 'input'])('%s has to be there', (key) => {
  expect((checkSchedule(without(nightly, key)).problems ?? []).map((p) => p.path.split('.')[0])).toContain(key)
})

test.each<[string, Record<string, unknown>, string[]]>([
  ['a key that nobody knows', { paused: true }, ['paused']],
  ['an hour that no clock shows', { calendars: [{ hour: 25, minute: 0 }] }, ['calendars.0.hour']],
  ['a calendar without a minute', { calendars: [{ hour: 2 }] }, ['calendars.0.minute']],
  ['a day by number', { calendars: [{ hour: 2, minute: 0, dayOfWeek: 1 }] }, ['calendars.0.dayOfWeek']],
  ['a time zone that is nowhere', { timeZone: 'Europe/Atlantis' }, ['timeZone']],
  ['a policy that stops no jobs', { policies: { ...policies, overlap: 'TERMINATE_OTHER' } }, ['policies.overlap']],
  ['a duration without a unit', { policies: { ...policies, catchupWindow: '10' } }, ['policies.catchupWindow']],
  ['a workflow that nobody starts by itself', { workflow: 'sweepTrial' }, ['workflow']],
  ['an input with a typo and a wrong value', { input: { name: 'x', parkedTrials: 'leave', gird: {}, grid: { almr: [2] } } }, ['input.gird', 'input.grid.almr.0']],
  ['an input without a name', { input: { parkedTrials: 'leave' } }, ['input.name']],
  ['a preparation without a name for its corpus', { workflow: 'corpusPreparation', input: { name: 'x' } }, ['input.corpus.name']],
  ['nights that a parked trial would hold back', { input: { name: 'x' } }, ['input.parkedTrials']],
])('%s is refused by path', (_, over, paths) => {
  expect(pathsOf(over)).toEqual(paths)
})

test('nights that may overlap need not leave their parked trials', () => {
  expect(pathsOf({ policies: { ...policies, overlap: 'ALLOW_ALL' }, input: { name: 'x' } })).toEqual([])
})

test('times are numbers, lists or all of them', () => {
  expect(pathsOf({ calendars: [{ hour: [1, 13], minute: '*', dayOfWeek: ['MONDAY', 'FRIDAY'], month: 'JULY', dayOfMonth: 31 }] })).toEqual([])
  expect(checkSchedule({ ...nightly, calendars: [{ hour: 'noon', minute: 0 }] }).problems).toEqual([{ path: 'calendars.0.hour', expected: '"*", a whole number from 0 to 23 or a list of them', got: '"noon"' }])
})

test('a file says everything that is wrong with it, and its name', () => {
  writeFileSync(join(folder, 'bad.yaml'), 'id: x\nworkflow: cptRun\n')
  expect(() => readSchedule(join(folder, 'bad.yaml'))).toThrow(/bad\.yaml: \d problems; nothing was applied\n.*calendars: expected/)
  writeFileSync(join(folder, 'no.yaml'), 'a: [')
  expect(() => readSchedule(join(folder, 'no.yaml'))).toThrow(/no\.yaml/)
})

test('two files of one schedule are refused, before anything is applied', () => {
  for (const name of ['a.json', 'b.json']) writeFileSync(join(folder, name), JSON.stringify(nightly))
  expect(() => schedulesAsCode(home, folder)).toThrow('a.json and b.json are both schedule nightly-sweep; nothing was applied')
})
