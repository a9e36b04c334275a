import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ArtifactRef } from '@cpt/contracts/artifact'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { reportedRuns } from '../gc/reports.ts'
import { folderOf } from './report-folder.ts'
import { sampleRun } from './sample-run.fixture.ts'
import { writeReport } from './write-report.ts'

let reportsDir: string
beforeEach(async () => (reportsDir = await mkdtemp(join(tmpdir(), 'cpt-report-'))))
afterEach(() => rm(reportsDir, { recursive: true, force: true }))

const curve = Buffer.from('{"step":1,"tokens":4096,"loss":5.1,"lr":0.001,"gradNorm":1}\n{"step":2,"tok\n{"step":3,"tokens":12288,"loss":4.9,"lr":0.001,"gradNorm":1}\n')

const storeOf = (run: ReturnType<typeof sampleRun>, read: (ref: ArtifactRef) => Promise<Uint8Array> = () => Promise.resolve(curve)) => ({
  record: (fingerprint: string) => Promise.resolve(run.source.records.get(fingerprint) ?? null),
  read,
  get: (uri: string) => {
    const at = run.request.decisions.findIndex((d) => d.uri === uri)
    return Promise.resolve(at < 0 ? null : Buffer.from(JSON.stringify(run.source.decisions[at])))
  },
})

test('a page and a summary are written, and nothing else is left', async () => {
  const run = sampleRun()
  const { path, url } = await writeReport({ store: storeOf(run), config: { reportsDir, reportsUrl: null } })(run.request)
  expect(path).toBe(join(reportsDir, folderOf(run.request), 'index.html'))
  expect(url).toMatch(/^file:\/\/\/.*index\.html$/)
  expect((await readdir(join(reportsDir, folderOf(run.request)))).sort()).toEqual(['index.html', 'run.json'])
  expect(await readFile(path, 'utf8')).toContain('Training loss and learning rate')
  const summary: unknown = JSON.parse(await readFile(join(reportsDir, folderOf(run.request), 'run.json'), 'utf8'))
  expect(summary).toMatchObject({ format: 'cpt-report/1', verdict: 'pass', tokens: 1_228_800, workflowId: 'cpt/quickstart', fingerprints: [...run.source.records.keys()], decisions: run.request.decisions.map((d) => d.uri) })
})

test('what led to a run stands in its lineage, and is kept with it', async () => {
  const run = sampleRun()
  const verdict = 'c'.repeat(64)
  run.request.spec.lineage = [{ what: 'verdict of the sweep', uri: `store:${verdict}/verdict.json`, sha256: 'd'.repeat(64) }, { what: 'approval', uri: 'decisions/f00d/approval-1.json', sha256: 'e'.repeat(64) }]
  const { path } = await writeReport({ store: storeOf(run), config: { reportsDir, reportsUrl: null } })(run.request)
  expect(await readFile(path, 'utf8')).toMatch(/What led to this run[^]*verdict of the sweep[^]*decisions\/f00d\/approval-1\.json/)
  const [{ marks } = expect.fail('no report is listed')] = await reportedRuns(reportsDir)
  expect([marks.fingerprints.has(verdict), marks.decisions.has('f00d')]).toEqual([true, true])
})

test('writing again replaces the page, and the address follows the configuration', async () => {
  const run = sampleRun()
  const write = writeReport({ store: storeOf(run), config: { reportsDir, reportsUrl: 'http://localhost:8080/' } })
  const first = await write(run.request)
  const second = await write({ ...run.request, verdict: 'fail' })
  expect(second).toEqual(first)
  expect(first.url).toBe(`http://localhost:8080/${folderOf(run.request)}/index.html`)
  expect(await readdir(reportsDir)).toHaveLength(1)
})

test('what cannot be read is left out, not fatal', async () => {
  const run = sampleRun()
  const store = { ...storeOf(run, () => Promise.reject(new Error('gone'))), get: () => Promise.reject(new Error('gone')) }
  const missed: unknown[] = []
  const { path } = await writeReport({ store, config: { reportsDir, reportsUrl: null }, log: { warn: (x: unknown) => void missed.push(x) } })(run.request)
  expect(await readFile(path, 'utf8')).toContain('The curve files were not found')
  expect(missed).toHaveLength(3 + run.request.decisions.length)
})

test.each(['../../etc/passwd', '', '训练/一', 'a'.repeat(900), '.hidden', 'cpt/quickstart\0'])('the folder of workflow id %j stays one safe name', (workflowId) => {
  const folder = folderOf({ workflowId, runId: 'r' })
  expect(folder).toMatch(/^[a-z0-9][a-z0-9-]{0,62}$/)
  expect(folder).not.toBe(folderOf({ workflowId, runId: 'another' }))
})
