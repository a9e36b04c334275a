import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { localDiskStore } from '@cpt/activities/artifact-store/local-disk'
import type { CptRunResult, RunProgress, StageLine } from '@cpt/contracts/cpt-run'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { benchmarkTable, changeTable, timeTable } from './results.ts'

let store: string
beforeEach(() => void (store = mkdtempSync(join(tmpdir(), 'cpt-results-'))))
afterEach(() => rmSync(store, { recursive: true, force: true }))

const fingerprint = 'ab'.repeat(32)
const line: StageLine = { key: 'compare/gsm8k', stage: 'compare-benchmark', state: 'done', fingerprint, startedAtMs: 0, seconds: 2, jobSeconds: 1.5, attempts: 1, note: '' }
const progress = (stages: StageLine[]): RunProgress => ({ status: 'done', paused: false, current: '', stages, parked: [], decisions: [], recoveries: 0, live: null })

test('the change of loss carries its sign and standard error', () => {
  const result: CptRunResult = { verdict: 'pass', model: null, report: '', tokens: 1, change: [{ group: 'zh', nllBefore: 5.76, nllAfter: 5.36, deltaNll: -0.4, seNll: 0.012 }] }
  expect(changeTable(result).split('\n').at(-1)?.trim().split(/\s+/)).toEqual(['zh', '5.760', '5.360', '−0.400', '0.012'])
})

test('benchmarks come from the commit records; a stage without one is left out', async () => {
  const record = {
    format: 'cpt-commit/1', fingerprint, stage: 'compare-benchmark', version: 1, request: {}, files: [],
    result: { items: 40, before: 0.25, after: 0.275, difference: 0.025, standardError: 0.05 }, parents: [], attempt: 'a', wallSeconds: 1, committedAt: '2026-01-01T00:00:00Z',
  }
  mkdirSync(join(store, 'commits', 'ab'), { recursive: true })
  writeFileSync(join(store, 'commits', 'ab', `${fingerprint}.json`), JSON.stringify(record))
  const text = await benchmarkTable(localDiskStore({ store }), progress([line, { ...line, key: 'compare/absent', fingerprint: 'cd'.repeat(32) }]))
  expect(text?.split('\n').slice(2).map((row) => row.trim().split(/\s+/))).toEqual([['gsm8k', '0.250', '0.275', '+0.025', '0.050', '40']])
  expect(await benchmarkTable(localDiskStore({ store }), progress([]))).toBeNull()
})

test('reused stages are marked in the table of times', () => {
  const rows = timeTable(progress([line, { ...line, key: 'ingest', state: 'reused' }])).split('\n').slice(2)
  expect(rows[0]).toContain('1.5 s')
  expect(rows[1]).toMatch(/reused$/)
})
