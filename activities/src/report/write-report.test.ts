import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ArtifactRef } from '@cpt/contracts/artifact'
import type { ConfirmationVerdict, ConfirmedPoint } from '@cpt/contracts/model-transfer'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { reportedRuns } from '../gc/reports.ts'
import { sha256 } from '../identity.ts'
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

/** A run that a transfer led to, and the store that has the records of the transfer. */
const transferred = () => {
  const run = sampleRun()
  const points: ConfirmedPoint[] = [
    { role: 'chosen', almr: 0.5, proxyLr: 1e-3, targetLr: 5e-4, predicted: { added: -0.848, retained: 0.071 }, found: { added: -0.791, retained: 0.032 }, feasible: true },
    { role: 'more-almr', almr: 0.8, proxyLr: 1e-3, targetLr: 5e-4, predicted: { added: -1.032, retained: 0.156 }, found: { added: -0.955, retained: 0.091 }, feasible: false },
    { role: 'lower-lr', almr: 0.5, proxyLr: 4e-4, targetLr: 2e-4, predicted: null, found: null, feasible: null },
  ]
  const confirmation: ConfirmationVerdict = { format: 'cpt-confirmation/1', outcome: 'holds', unit: 'nats/token', points, words: ['The choice of the proxy holds on the target.'] }
  const files = new Map([
    ['decisions/f00d/confirmation-1.json', Buffer.from(JSON.stringify({ key: 'confirmation', kind: 'confirmation', inputs: {}, output: confirmation }))],
    ['decisions/f00d/approval-1.json', Buffer.from(JSON.stringify({ key: 'approval', kind: 'approval', inputs: { override: null }, output: { approved: true, reason: 'seen <b>it</b>', by: 'ann' } }))],
  ])
  run.request.spec.lineage = [{ what: 'verdict of the sweep', uri: `store:${'c'.repeat(64)}/verdict.json`, sha256: 'd'.repeat(64) }, ...[...files].map(([uri, bytes]) => ({ what: uri.includes('approval') ? 'approval' : 'confirmation on this model', uri, sha256: sha256(bytes) }))]
  const store = { ...storeOf(run), get: (uri: string) => Promise.resolve(files.get(uri) ?? null) }
  return { run, store, files }
}
const written = async ({ run, store }: Pick<ReturnType<typeof transferred>, 'run' | 'store'>): Promise<string> => await readFile((await writeReport({ store, config: { reportsDir, reportsUrl: null } })(run.request)).path, 'utf8')

test('what led to a run stands in its lineage, and is kept with it', async () => {
  expect(await written(transferred())).toMatch(/What led to this run[^]*verdict of the sweep[^]*decisions\/f00d\/approval-1\.json/)
  const [{ marks } = expect.fail('no report is listed')] = await reportedRuns(reportsDir)
  expect([marks.fingerprints.has('c'.repeat(64)), marks.decisions.has('f00d')]).toEqual([true, true])
})

test('the run on the target of a transfer shows point by point what the proxy predicted and what was found, and who approved', async () => {
  const page = await written(transferred())
  const section = /<section id="transfer">[^]*?<\/section>/.exec(page)?.[0] ?? ''
  const rows = [...section.matchAll(/<tr class="">([^]*?)<\/tr>/g)].map((m) => [...m[1]!.matchAll(/<td[^>]*>([^]*?)<\/td>/g)].map((c) => c[1]!.replace(/<[^>]*>/g, '')))
  expect(rows).toEqual([
    ['chosen', '0.5', '1e-3', '5e-4', '−0.8480', '−0.7910', '+0.0710', '+0.0320', 'yes'],
    ['more ALMR', '0.8', '1e-3', '5e-4', '−1.0320', '−0.9550', '+0.1560', '+0.0910', 'no'],
    ['lower LR', '0.5', '4e-4', '2e-4', '–', '–', '–', '–', '–'],
  ])
  expect(section).toContain('The choice of the proxy holds on the target.')
  expect(section).toContain('Approved by ann: seen &lt;b&gt;it&lt;/b&gt;.')
  expect(section).not.toContain('overridden')
})

test('a run that no transfer led to has no section of one', async () => {
  const run = sampleRun()
  expect(await written({ run, store: storeOf(run) })).not.toContain('id="transfer"')
})

test('that the evidence was overridden stands on the page of the run, with the reason', async () => {
  const { run, store, files } = transferred()
  const bytes = Buffer.from(JSON.stringify({ inputs: { override: { almr: 0.3, peakLr: 2e-3, reason: 'the budget is gone', by: 'bob' } }, output: { approved: true, reason: '', by: 'ann' } }))
  files.set('decisions/f00d/approval-1.json', bytes)
  run.request.spec.lineage![2]!.sha256 = sha256(bytes)
  expect(await written({ run, store })).toMatch(/The evidence was overridden<\/strong> by bob, who took ALMR 0\.3 at peak learning rate 2e-3 of the proxy: the budget is gone/)
})

test('a confirmation that is not the one of the lineage, or is gone, is not shown', async () => {
  const { run, store, files } = transferred()
  files.set('decisions/f00d/confirmation-1.json', Buffer.from('{"inputs":{},"output":{}}'))
  files.delete('decisions/f00d/approval-1.json')
  const page = await written({ run, store })
  expect(page).toContain('No confirmation to show')
  expect(page).toContain('No approval to show')
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
