import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Client } from '@temporalio/client'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { AlmrLrSweepInput } from '@cpt/contracts/almr-lr-sweep'
import type { SweepVerdict, TrialOutcome } from '@cpt/contracts/sweep'
import { localDiskStore } from '../artifact-store/local-disk.ts'
import { loadConfig } from '../config.ts'
import { resolveSweep } from '../resolve-sweep.ts'
import { commitVerdict, readVerdict, rememberSweep, sweptBefore } from './verdicts.ts'

const samples = fileURLToPath(new URL('../../../samples', import.meta.url))
let dir: string
let openOnes: string[] = []
/** A server on which these workflows are open. */
const client = { workflow: { getHandle: (id: string) => ({ describe: () => Promise.resolve({ status: { name: openOnes.includes(id) ? 'RUNNING' : 'FAILED' } }) }) } } as unknown as Client
const deps = () => {
  const roots = { samples, store: join(dir, 'store') }
  return { config: { ...loadConfig({}), roots }, store: localDiskStore(roots), client }
}
beforeAll(async () => { dir = await mkdtemp(join(tmpdir(), 'cpt-verdicts-')) })
afterAll(() => rm(dir, { recursive: true }))

const losses = { added: { perToken: 4, perByte: 2 }, retained: { perToken: 4, perByte: 1 } }
const point = { almr: 0.2, peakLr: 1e-3, seed: 1 }
const trial = (index: number, status: TrialOutcome['status'], workflowId = `sweep/x/trial-${index}`): TrialOutcome => ({
  index, point, status, workflowId, measurement: status === 'done' ? { ...losses, tokens: 1, gpuSeconds: 1, model: { uri: `store:${'a'.repeat(64)}/model/`, sha256: 'b'.repeat(64), bytes: 1 }, training: 'a'.repeat(64) } : null,
})
const fileOf = async (input: AlmrLrSweepInput, trials: TrialOutcome[], words = ['said']) => {
  const { sweep, run } = await resolveSweep(deps())(input)
  const missing = trials.filter((t) => t.measurement === null).map(({ index, point: at, status }) => ({ index, point: at, status }))
  const verdict: SweepVerdict = { format: 'cpt-sweep-verdict/1', chosen: null, ties: [], edges: [], cells: [], standardDeviation: { added: null, retained: null }, base: losses, settings: sweep.choice, missing, words }
  return { format: 'cpt-verdict-file/1' as const, workflowId: `sweep/${sweep.name}`, sweep, run, trials, verdict }
}
const keep = async (input: AlmrLrSweepInput, trials: TrialOutcome[]) => {
  const file = await fileOf(input, trials)
  const { verdictRef } = await commitVerdict(deps())(file)
  await rememberSweep(deps())({ resolved: { sweep: file.sweep, run: file.run }, verdict: verdictRef, workflowId: file.workflowId, report: null })
  return verdictRef
}
const found = async (input: AlmrLrSweepInput) => await sweptBefore(deps())(await resolveSweep(deps())(input))

test('a verdict is committed once with the trained models as parents, and what was committed first holds', async () => {
  const first = await commitVerdict(deps())(await fileOf({ name: 'once' }, [trial(0, 'done')]))
  const again = await commitVerdict(deps())(await fileOf({ name: 'once' }, [trial(0, 'done')], ['said otherwise']))
  expect(again).toEqual(first)
  expect(again.verdict.words).toEqual(['said'])
  expect((await deps().store.record(first.verdictRef.uri.slice(6, 70)))?.parents).toContain('a'.repeat(64))
})

test('a transfer reads back all that its sweep was resolved to: index files of tokens, encoders, a scorer of its own', async () => {
  const file = await fileOf({ name: 'whole' }, [trial(0, 'done')])
  const ref = (name: string) => ({ uri: `models:${name}`, sha256: 'c'.repeat(64), bytes: 1 })
  const [source, ...others] = file.run.sources
  const run = { ...file.run, sources: [{ ...source!, part: 'a.bin', index: ref('a.idx') }, ...others], encoders: { 'models:bert/': ref('bert/') }, scorer: ref('scorer/'), scorerParameters: 7, extended: ref('extended/') }
  const { verdictRef } = await commitVerdict(deps())({ ...file, run })
  expect((await readVerdict(deps())(verdictRef)).run).toEqual(run)
})

test('the same sweep under another name, owner, budget, pace or name of its corpus has been swept; another grid, base setting or tolerance has not', async () => {
  const verdictRef = await keep({ name: 'monday' }, [trial(0, 'done')])
  for (const same of [{ name: 'tuesday' }, { owner: 'ann', description: 'x' }, { budgetGpuSeconds: 7, expectedGpuSeconds: 1, parallel: 9 }, { parkedTrials: 'leave', whenUnchanged: 'end' }, { run: { name: 'other', placement: { data: { threads: 4 } } } }, { run: { corpus: { name: 'web' } } }] satisfies AlmrLrSweepInput[]) expect((await found(same))?.verdictRef).toEqual(verdictRef)
  for (const other of [{ grid: { almr: [0.3] } }, { tokensPerTrial: 65_536 * 4 }, { choice: { retentionToleranceNats: 0.1 } }, { run: { corpus: { dedup: { jaccard: 0.5 } } } }] satisfies AlmrLrSweepInput[]) expect(await found(other)).toBeNull()
})

test('another scorer of the corpus is another sweep, whatever its path is called', async () => {
  const given: AlmrLrSweepInput = { name: 'scored', grid: { almr: [0.11] } }
  const resolved = await resolveSweep(deps())(given)
  const scoredBy = (sha256: string) => ({ ...resolved, run: { ...resolved.run, scorer: { uri: 'models:scorer/', sha256, bytes: 1 } } })
  const { verdictRef } = await commitVerdict(deps())(await fileOf(given, [trial(0, 'done')]))
  await rememberSweep(deps())({ resolved: scoredBy('1'.repeat(64)), verdict: verdictRef, workflowId: 'sweep/scored', report: null })
  expect((await sweptBefore(deps())(scoredBy('1'.repeat(64))))?.verdictRef).toEqual(verdictRef)
  expect(await sweptBefore(deps())(scoredBy('2'.repeat(64)))).toBeNull()
})

test('a verdict that was removed is no longer known, and one that cannot be read is for a person', async () => {
  const given: AlmrLrSweepInput = { name: 'spoilt', grid: { almr: [0.13] } }
  const { uri } = await keep(given, [trial(0, 'done')])
  const fingerprint = uri.slice(6, 70)
  await writeFile(await deps().store.localPath({ uri }), 'x')
  await expect(found(given)).rejects.toMatchObject({ type: 'StoreCorrupt', nonRetryable: true, message: expect.stringContaining('the verdict of sweep/spoilt') as unknown })
  await deps().store.remove(`commits/${fingerprint.slice(0, 2)}/${fingerprint}.json`)
  expect(await found(given)).toBeNull()
})

test('a sweep that lacks trials is swept again, unless all it lacks still waits for a person', async () => {
  const input: AlmrLrSweepInput = { grid: { almr: [0.7] } }
  await keep(input, [trial(0, 'done'), trial(1, 'parked')])
  openOnes = ['sweep/x/trial-1']
  expect(await found(input)).toMatchObject({ workflowId: 'sweep/almr-lr', verdict: { missing: [{ index: 1 }] } })
  openOnes = []
  expect(await found(input)).toBeNull()

  const failed: AlmrLrSweepInput = { grid: { almr: [0.9] } }
  await keep(failed, [trial(0, 'done'), trial(1, 'failed')])
  openOnes = ['sweep/x/trial-1']
  expect(await found(failed)).toBeNull()
})
