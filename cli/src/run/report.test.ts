import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { report } from './report.ts'

let state: string
let out: string[]
beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), 'cpt-report-'))
  out = []
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => out.push(String(text)) > 0)
})
afterEach(async () => {
  vi.restoreAllMocks()
  await rm(state, { recursive: true, force: true })
})

const write = async (folder: string, run: object | string): Promise<void> => {
  await mkdir(join(state, 'reports', folder), { recursive: true })
  await writeFile(join(state, 'reports', folder, 'run.json'), typeof run === 'string' ? run : JSON.stringify(run))
}
const of = (name: string, startedAtMs: number, verdict = 'pass') => ({ workflowId: `cpt/${name}`, run: name, folder: `${name}-${startedAtMs}`, startedAtMs, verdict })

test('the newest report of a run is found by its name or workflow id, with no server running', async () => {
  await write('a-1', of('a', 1))
  await write('a-2', of('a', 2, 'none'))
  await write('b-3', of('b', 3))
  await report('a', { state })
  await report('cpt/a', { state })
  expect(out).toEqual(Array.from({ length: 2 }, () => `${join(state, 'reports', 'a-2', 'index.html')}\n`))
})

test('a run without a report is named, with what to do', async () => {
  await write('a-1', of('a', 1))
  await expect(report('b', { state })).rejects.toThrow(/^b has no report in /)
})

test('all reports are listed newest first; a folder that is no report is passed over', async () => {
  await write('a-1', of('a', 1))
  await write('b-3', of('b', 3, 'fail'))
  await write('junk', '{}')
  await write('cut', '{"workflowId": "cpt/')
  await report(undefined, { state })
  expect(out.join('').split('\n').slice(0, 2).map((l) => l.split('  ')[0])).toEqual(['cpt/b', 'cpt/a'])
})
