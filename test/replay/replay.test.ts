import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { beforeAll, expect, test } from 'vitest'
import { readHistories, scenarioOf, type Recorded } from './recorded-histories.ts'
import { replayHistories, silenceSdk } from './replay-histories.ts'
import { historyNames } from './scenarios.ts'

const bundle = fileURLToPath(new URL('../../workers/dist/workflows.js', import.meta.url))
let recorded: Recorded[]

beforeAll(async () => {
  silenceSdk()
  recorded = await readHistories()
})

/** What replay says of histories that do not fit, by name. */
const errorsOf = async (code: string, histories: Recorded[]): Promise<Record<string, string>> =>
  Object.fromEntries((await replayHistories(code, histories)).flatMap(({ name, error }) => (error === null ? [] : [[name, error]])))

test('there is a history of every way through the run', () => {
  expect([...new Set(recorded.map((r) => scenarioOf(r.name)))].sort()).toEqual(historyNames().sort())
})

test('every recorded history replays on the workflow code of today', async () => {
  expect(await errorsOf(await readFile(bundle, 'utf8'), recorded)).toEqual({})
})

test.each([
  ['a stage called under another id', /'hold-out', 'holdOut'/g, `'hold-out-2', 'holdOut'`, ['complete', 'cancelled']],
  ['two stages in the other order', /'ingest', 'ingest'/g, `'filter', 'filter'`, ['complete', 'aborted', 'parked-and-retried']],
  ['a park that no longer waits', /await \(0,\s?\w+\.condition\)\(\(\)\s?=>\s?decisionOn\([^;]*\);/g, '', ['parked-and-retried', 'aborted']],
])('a change that breaks runs under way is noticed: %s', async (_what, from, to, broken) => {
  const code = await readFile(bundle, 'utf8')
  const mutant = code.replace(from, to)
  expect(mutant).not.toBe(code)
  const errors = await errorsOf(mutant, recorded.filter((r) => broken.includes(r.name)))
  expect(Object.keys(errors).sort()).toEqual([...broken].sort())
})

test('histories name nothing of the machine that recorded them', () => {
  for (const { history } of recorded) {
    const text = JSON.stringify(history, (_key, value: unknown) => (typeof value === 'object' && value !== null && 'data' in value && typeof value.data === 'string' ? Buffer.from(value.data, 'base64').toString('utf8') : value))
    expect(text).not.toMatch(/\/(?:tmp|home|root|Users|work)\//)
  }
})
