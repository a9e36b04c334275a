import type { CommitRecord } from '@cpt/contracts/artifact'
import { expect, test } from 'vitest'
import { readSource } from './read-source.ts'

const record = (fingerprint: string, result: unknown): CommitRecord => ({ format: 'cpt-commit/1', fingerprint, stage: 'ingest', version: 2, request: {}, files: [], result, parents: [], attempt: '', wallSeconds: 1, committedAt: '' })
const unit = (fingerprint: string, source: string, lines: number, quarantined: number) => record(fingerprint, { outputs: {}, counts: { lines, quarantined, bySource: { [source]: lines - quarantined } } })

test('lines of a source are those of all its files, and a unit whose record is gone is told', async () => {
  const records = new Map([record('all', { units: ['a', 'b', 'c', 'gone'] }), unit('a', 'web', 10, 1), unit('b', 'web', 5, 5), unit('c', 'books', 7, 0)].map((r) => [r.fingerprint, r]))
  const missed: string[] = []
  const store = {
    record: (f: string) => (f === 'gone' ? Promise.reject(new Error('no disk')) : Promise.resolve(records.get(f) ?? null)),
    read: () => Promise.reject(new Error('nothing to read')),
    get: () => Promise.resolve(null),
  }
  const { sourceLines } = await readSource(store, { fingerprints: ['all'], decisions: [] }, (what) => missed.push(what))
  expect(sourceLines.get('all')).toEqual(new Map([['web', { lines: 15, quarantined: 6 }], ['books', { lines: 7, quarantined: 0 }]]))
  expect(missed).toEqual(['gone'])
})
