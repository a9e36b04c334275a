import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ArtifactRef, CommitRecord } from '@cpt/contracts/artifact'
import { train } from '@cpt/contracts/train'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { reportedRuns } from '../../gc/reports.ts'
import { folderOf } from '../report-folder.ts'
import { sampleRun } from '../sample-run.fixture.ts'
import { sampleSweep, type SampleSweep } from './sample-sweep.fixture.ts'
import { writeSweepReport } from './write-sweep-report.ts'

let reportsDir: string
beforeEach(async () => (reportsDir = await mkdtemp(join(tmpdir(), 'cpt-sweep-report-'))))
afterEach(() => rm(reportsDir, { recursive: true, force: true }))

const temporal = { uiUrl: 'http://ui.test:8080/', namespace: 'cpt' }
const curve = Buffer.from('{"step":1,"tokens":4096,"loss":5.1,"lr":0.001}\n{"step":2,"tokens":8192,"loss":NaN,"lr":0.001}\n{"step":3,"tokens":12288,"loss":4.9,"lr":0.001}\n')

/** A store that has the trainings of a sweep's trials. */
const storeOf = ({ request }: SampleSweep, read: (ref: ArtifactRef) => Promise<Uint8Array> = () => Promise.resolve(curve)) => {
  const trained = [...sampleRun().source.records.values()].find((r) => r?.stage === train.name)!
  const records = new Map(request.trials.flatMap((t): [string, CommitRecord][] => (t.measurement === null ? [] : [[t.measurement.training, { ...trained, fingerprint: t.measurement.training }]])))
  return { record: (f: string) => Promise.resolve(records.get(f) ?? null), read, get: () => Promise.resolve(null) }
}

test('a page and a summary are written, and every trial is linked to where the UI shows it', async () => {
  const sweep = sampleSweep()
  const { path, url } = await writeSweepReport({ store: storeOf(sweep), config: { reportsDir, reportsUrl: 'http://localhost:8080', temporal } })(sweep.request)
  expect(url).toBe(`http://localhost:8080/${folderOf(sweep.request)}/index.html`)
  expect((await readdir(join(reportsDir, folderOf(sweep.request)))).sort()).toEqual(['index.html', 'run.json'])
  const page = await readFile(path, 'utf8')
  for (const t of sweep.request.trials) expect(page).toContain(`<a href="http://ui.test:8080/namespaces/cpt/workflows/${encodeURIComponent(t.workflowId)}">`)
  expect(page).toContain('Training loss of each trial')
  const summary: unknown = JSON.parse(await readFile(join(reportsDir, folderOf(sweep.request), 'run.json'), 'utf8'))
  expect(summary).toMatchObject({ format: 'cpt-report/1', run: 'almr-lr-nightly', folder: folderOf(sweep.request), workflowId: sweep.request.workflowId, startedAtMs: sweep.request.startedAtMs, verdict: 'chosen', owner: 'ann', chosen: { almr: 0.5, peakLr: 0.001 } })
})

test('as long as the report is there, gc keeps the trainings of all trials, the verdict and its decision', async () => {
  const sweep = sampleSweep({ without: { 3: 'failed' } })
  await writeSweepReport({ store: storeOf(sweep), config: { reportsDir, reportsUrl: null, temporal } })(sweep.request)
  const [{ marks } = expect.fail('no report is listed')] = await reportedRuns(reportsDir)
  const trainings = sweep.request.trials.flatMap((t) => t.measurement?.training ?? [])
  expect(trainings).toHaveLength(23)
  expect([...marks.fingerprints]).toEqual(expect.arrayContaining([...trainings, ...sweep.request.lines.map((l) => l.fingerprint).filter((f) => f !== '')]))
  expect(marks.fingerprints).toContain(/store:([0-9a-f]{64})/.exec(sweep.request.verdictRef!.uri)![1])
  expect(marks.decisions).toContain('a1')
})

test('what cannot be read is shown as missing, not fatal', async () => {
  const sweep = sampleSweep()
  const missed: unknown[] = []
  const log = { warn: (x: unknown) => void missed.push(x) }
  const config = { reportsDir, reportsUrl: null, temporal: { ...temporal, uiUrl: null } }
  const unread = await writeSweepReport({ store: storeOf(sweep, () => Promise.reject(new Error('gone'))), config, log })(sweep.request)
  expect(await readFile(unread.path, 'utf8')).toContain('the curve files were not found')
  expect(missed).toHaveLength(24)
  const unasked = await writeSweepReport({ store: { ...storeOf(sweep), record: () => Promise.reject(new Error('gone')) }, config, log })(sweep.request)
  expect(await readFile(unasked.path, 'utf8')).toContain('the curve files were not found')
})

test('a UI address that is none of the web is not linked to', async () => {
  const sweep = sampleSweep({ almr: [0.5], peakLrs: [1e-3], seeds: [1] })
  const { path } = await writeSweepReport({ store: storeOf(sweep), config: { reportsDir, reportsUrl: null, temporal: { ...temporal, uiUrl: 'javascript:alert(1)//' } } })(sweep.request)
  expect(await readFile(path, 'utf8')).not.toContain('javascript:')
})
