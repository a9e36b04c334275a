import { createHash } from 'node:crypto'
import type { CommitRecord } from '@cpt/contracts/artifact'
import type { ArtifactStore } from './artifact-store.ts'

const content = Buffer.from('{"rows":3}'.repeat(2_000))
const fingerprint = createHash('sha256').update('a commit that is disturbed').digest('hex')

/** What the crash tests commit again and again: one data file, then its record. */
export const disturbed = {
  fingerprint,
  content,
  recordKey: `commits/${fingerprint.slice(0, 2)}/${fingerprint}.json`,
  dataKey: (attempt: string) => `data/${fingerprint.slice(0, 2)}/${fingerprint}/${attempt}/out/corpus.json`,
}

/** Writes and commits as `attempt`; returns the record that holds. */
export const commitOnce = async (store: ArtifactStore, attempt: string): Promise<CommitRecord> => {
  const file = await store.write(fingerprint, attempt, 'out/corpus.json', content)
  return await store.commit({ format: 'cpt-commit/1', fingerprint, stage: 'ingest', version: 1, request: {}, files: [file], result: { lines: 3 }, parents: [], attempt, wallSeconds: 1, committedAt: '2026-01-01T00:00:00Z' })
}
