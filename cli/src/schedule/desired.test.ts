import { Client, Connection } from '@temporalio/client'
import { afterAll, expect, test } from 'vitest'
import { desiredOf, differences, viewOf } from './desired.ts'
import { ScheduleFile } from './schedule-file.ts'

const connection = Connection.lazy()
const client = new Client({ connection, namespace: 'cpt' })
afterAll(() => connection.close())

const file = (over: Partial<ScheduleFile> = {}): ScheduleFile =>
  ScheduleFile.parse({
    id: 'nightly', workflow: 'corpusPreparation', calendars: [{ hour: 2, minute: 30 }], timeZone: 'UTC',
    policies: { overlap: 'SKIP', catchupWindow: '1h', pauseOnFailure: false }, input: { name: 'web', corpus: { name: 'web', filter: { minWords: 3 } } }, ...over,
  })
const view = async (over: Partial<ScheduleFile> = {}) => await viewOf(client, await desiredOf(client, 'cpt', file(over)))

test('a schedule in words says what starts when, with which input and policies', async () => {
  expect(Object.fromEntries(await view())).toMatchObject({
    'workflow': 'corpusPreparation', 'workflowId': 'corpus/web', 'taskQueue': 'cpt', 'timeZone': 'UTC', 'description': 'corpusPreparation by schedule nightly',
    'policies.overlap': 'SKIP', 'policies.catchupWindowSeconds': 3600, 'policies.pauseOnFailure': false, 'input.corpus.filter.minWords': 3,
  })
})

test('the same schedule differs in nothing, however it is written', async () => {
  expect(differences(await view(), await view())).toEqual([])
  expect(differences(await view(), await view({ calendars: [{ hour: [2], minute: [30], dayOfMonth: '*' }] }))).toEqual([])
  expect(differences(await view(), await view({ policies: { ...file().policies, catchupWindow: '60m' } }))).toEqual([])
})

test.each<[string, Partial<ScheduleFile>, RegExp[]]>([
  ['another hour', { calendars: [{ hour: 4, minute: 30 }] }, [/^calendars: .*"hour":"2".* → .*"hour":"4"/]],
  ['another time zone', { timeZone: 'Asia/Shanghai' }, [/^timeZone: "UTC" → "Asia\/Shanghai"$/]],
  ['other policies', { policies: { overlap: 'BUFFER_ONE', catchupWindow: '2h', pauseOnFailure: true } }, [/^policies\.catchupWindowSeconds: 3600 → 7200$/, /^policies\.overlap: "SKIP" → "BUFFER_ONE"$/, /^policies\.pauseOnFailure: false → true$/]],
  ['another input', { input: { name: 'web', corpus: { name: 'web', filter: { minWords: 4 } }, seed: 1 } }, [/^input\.corpus\.filter\.minWords: 3 → 4$/, /^input\.seed: nothing → 1$/]],
  ['another name', { input: { ...file().input, name: 'books' } }, [/^input\.name: "web" → "books"$/, /^workflowId: "corpus\/web" → "corpus\/books"$/]],
  ['a jitter', { jitter: '10m' }, [/^jitterMs: nothing → 600000$/]],
])('%s is told by path, and nothing else', async (_, over, lines) => {
  const said = differences(await view(), await view(over))
  expect(said).toHaveLength(lines.length)
  for (const [i, line] of lines.entries()) expect(said[i]).toMatch(line)
})
