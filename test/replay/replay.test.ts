import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { beforeAll, expect, test } from 'vitest'
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker'
import { scenarios } from './scenarios.ts'

interface Recorded {
  name: string
  workflowId: string
  history: unknown
}

const folder = new URL('histories/', import.meta.url)
const bundle = fileURLToPath(new URL('../../workers/dist/workflows.js', import.meta.url))
let recorded: Recorded[]

beforeAll(async () => {
  // what a mutant breaks is expected here, and said by the result
  Runtime.install({ logger: new DefaultLogger('ERROR', () => undefined), telemetryOptions: { logging: { filter: 'OFF' } } })
  const names = (await readdir(folder)).filter((n) => n.endsWith('.json')).sort()
  recorded = await Promise.all(names.map(async (name) => ({ name: name.slice(0, -5), ...(JSON.parse(await readFile(new URL(name, folder), 'utf8')) as Omit<Recorded, 'name'>) })))
})

/** Replays histories on workflow code; what a history says of its errors, by name. */
const replay = async (code: string, histories: Recorded[]): Promise<Record<string, string>> => {
  const errors: Record<string, string> = {}
  const results = Worker.runReplayHistories({ workflowBundle: { code } }, histories.map(({ workflowId, history }) => ({ workflowId, history })))
  for await (const { workflowId, error } of results) {
    if (error !== undefined) errors[histories.find((h) => h.workflowId === workflowId)?.name ?? workflowId] = error.message
  }
  return errors
}

test('there is a history of every way through the run', () => {
  expect(recorded.map((r) => r.name).sort()).toEqual(scenarios.map((s) => s.name).sort())
})

test('every recorded history replays on the workflow code of today', async () => {
  expect(await replay(await readFile(bundle, 'utf8'), recorded)).toEqual({})
})

test.each([
  ['a stage called under another id', /'hold-out', 'holdOut'/g, `'hold-out-2', 'holdOut'`, ['complete', 'cancelled']],
  ['two stages in the other order', /'ingest', 'ingest'/g, `'filter', 'filter'`, ['complete', 'aborted', 'parked-and-retried']],
  ['a park that no longer waits', /await \(0,\s?\w+\.condition\)\(\(\)\s?=>\s?decisionOn\([^;]*\);/g, '', ['parked-and-retried', 'aborted']],
])('a change that breaks runs under way is noticed: %s', async (_what, from, to, broken) => {
  const code = await readFile(bundle, 'utf8')
  const mutant = code.replace(from, to)
  expect(mutant).not.toBe(code)
  const errors = await replay(mutant, recorded.filter((r) => broken.includes(r.name)))
  expect(Object.keys(errors).sort()).toEqual([...broken].sort())
})

test('histories name nothing of the machine that recorded them', () => {
  for (const { history } of recorded) {
    const text = JSON.stringify(history, (_key, value: unknown) => (typeof value === 'object' && value !== null && 'data' in value && typeof value.data === 'string' ? Buffer.from(value.data, 'base64').toString('utf8') : value))
    expect(text).not.toMatch(/\/(?:tmp|home|root|Users|work)\//)
  }
})
