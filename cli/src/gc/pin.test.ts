import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { localDiskStore } from '@cpt/activities/artifact-store/local-disk'
import { pinsIn } from '@cpt/activities/gc/pins'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { pin, pins, unpin } from './pin.ts'

let state = ''
let said: string[] = []
beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), 'cpt-pins-'))
  said = []
  for (const name of ['TEMPORAL_ADDRESS', 'CPT_STORE', 'CPT_ROOTS']) vi.stubEnv(name, undefined)
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => said.push(String(text)) > 0)
})
afterEach(async () => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
  await rm(state, { recursive: true })
})

const fingerprints = ['a'.repeat(64), `${'a'.repeat(20)}${'b'.repeat(44)}`] as const
const store = () => localDiskStore({ store: join(state, 'store') })
const commit = (f: string) =>
  store().commit({ format: 'cpt-commit/1', fingerprint: f, stage: 'train', version: 1, request: {}, files: [], result: {}, parents: [], attempt: 'a1', wallSeconds: 0, committedAt: '2026-01-01T00:00:00Z' })
const writeReport = async () => {
  await mkdir(join(state, 'reports/best-1'), { recursive: true })
  await writeFile(join(state, 'reports/best-1/run.json'), JSON.stringify({ workflowId: 'cpt/best', runId: 'r1', run: 'best', startedAtMs: 1, fingerprints, decisions: ['decisions/0a1b/gate.json'] }))
}

test('a commit is pinned by the beginning of its fingerprint, where only one begins so', async () => {
  for (const f of fingerprints) await commit(f)
  await expect(pin('a'.repeat(10), { reason: 'x', state })).rejects.toThrow('2 commits begin with')
  await expect(pin('c'.repeat(10), { reason: 'x', state })).rejects.toThrow('no commit begins with')
  await pin('a'.repeat(21), { reason: 'for the paper', state })
  expect([...(await pinsIn(store())).values()]).toMatchObject([{ fingerprints: [fingerprints[0]], reason: 'for the paper' }])
})

test('a run is pinned by its report, when no server answers, with all its results and decisions', async () => {
  await writeReport()
  await pin('best', { reason: 'keep', state })
  expect([...(await pinsIn(store())).values()]).toMatchObject([{ what: 'cpt/best', fingerprints: [...fingerprints].sort(), decisions: ['0a1b'] }])
  await expect(pin('worst', { reason: 'keep', state })).rejects.toThrow('nothing is running')
})

test('a pin is listed until it is let go, by its name or by its run', async () => {
  await writeReport()
  await pin('best', { reason: 'keep\u001b[31m', state })
  await pins({ state })
  expect(said.at(-1)).toContain('cpt/best')
  expect(said.at(-1)).not.toContain('\u001b')
  await unpin('best', { state })
  await pins({ state })
  expect(said.at(-1)).toBe('nothing is pinned\n')
  await expect(unpin('best', { state })).rejects.toThrow('no pin is named best')
})
