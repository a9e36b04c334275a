import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CheckpointRecord } from '@cpt/contracts/artifact'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { ArtifactStore } from './artifact-store/artifact-store.ts'
import { localDiskStore } from './artifact-store/local-disk.ts'
import { sha256 } from './identity.ts'
import { phaseProgress } from './phase-progress.ts'

const fingerprint = sha256('a training')
const folder = `checkpoints/${fingerprint.slice(0, 2)}/${fingerprint}/`
let dir = ''
let store: ArtifactStore
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cpt-progress-'))
  store = localDiskStore({ store: dir })
})
afterEach(() => rm(dir, { recursive: true }))

const save = async (name: string, step: number): Promise<void> => {
  const [branch, seq] = name.split('-').map(Number)
  const record: CheckpointRecord = { format: 'cpt-checkpoint/1', fingerprint, branch: branch ?? 0, seq: seq ?? 0, parent: null, step, tokens: step * 4096, files: [], state: {}, attempt: 'a1', committedAt: '2026-01-01T00:00:00Z' }
  await store.putIfAbsent(`${folder}${name}.json`, Buffer.from(JSON.stringify(record)))
}

test('a training has made progress once it has saved a step, not by what it saves before the first', async () => {
  expect(await phaseProgress(store, fingerprint)).toBe('')
  await save('000-000001', 0)
  expect(await phaseProgress(store, fingerprint)).toBe('')
  await save('000-000002', 4)
  expect(await phaseProgress(store, fingerprint)).toBe(`${folder}000-000002.json`)
})

test('what was rolled back to the beginning, with a window skipped, is progress', async () => {
  await save('000-000001', 0)
  await save('001-000002', 0)
  expect(await phaseProgress(store, fingerprint)).toBe(`${folder}001-000002.json`)
})

test('a first checkpoint with steps, or one that cannot be read, counts as before', async () => {
  await save('000-000001', 4)
  expect(await phaseProgress(store, fingerprint)).toBe(`${folder}000-000001.json`)
  const damaged = sha256('another training')
  const key = `checkpoints/${damaged.slice(0, 2)}/${damaged}/000-000001.json`
  await store.putIfAbsent(key, Buffer.from('{'))
  expect(await phaseProgress(store, damaged)).toBe(key)
})
