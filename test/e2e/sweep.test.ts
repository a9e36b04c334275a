import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { WorkflowHandle } from '@temporalio/client'
import type { AlmrLrSweepInput, AlmrLrSweepResult } from '@cpt/contracts/almr-lr-sweep'
import type { RunProgress } from '@cpt/contracts/cpt-run'
import { controlQueue } from '@cpt/contracts/ids'
import { smallRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { claimsIn, nothingLeft } from '../harness/store.ts'
import type { System } from '../harness/system.ts'

let system: System
beforeAll(async () => { system = await startSmallSystem() })
afterAll(() => system.stop())

const { plan: _plan, preset: _preset, ...shared } = smallRun({ synthesis: { numDocs: 0 }, evaluation: { windowTokens: 128, maxTokensPerDoc: 128, benchmarks: [] }, training: { ...smallRun().training, warmupTokens: 4096, decayTokens: 4096 } })
const smallSweep = (over: AlmrLrSweepInput = {}): AlmrLrSweepInput => ({
  name: 'small', run: shared, grid: { almr: [0.5], peakLrs: [1e-4, 1e-3], seeds: [1, 2] }, tokensPerTrial: 4 * 4096, parallel: 2, ...over,
})
const startSweep = async (input: AlmrLrSweepInput): Promise<WorkflowHandle<(input?: AlmrLrSweepInput) => Promise<AlmrLrSweepResult>>> =>
  await system.client.workflow.start('almrLrSweep', { taskQueue: controlQueue, workflowId: `sweep/small-${randomUUID().slice(0, 8)}`, args: [input] })

test('a sweep trains every point of its grid once, and chooses; swept again nothing is trained', async () => {
  const sweep = await startSweep(smallSweep())
  const result = await sweep.result()
  expect(result.state).toBe('complete')
  expect(result.trials.map((t) => [t.point.almr, t.point.peakLr, t.point.seed, t.status])).toEqual([0, 0.5].flatMap((a) => [1e-4, 1e-3].flatMap((lr) => [1, 2].map((seed) => [a, lr, seed, 'done']))))
  expect(result.verdict.cells).toHaveLength(4)
  const claims = await claimsIn(system.storeDir)
  expect(claims.filter((c) => c.key === 'trial/round-1/train')).toHaveLength(8)
  await nothingLeft(system.storeDir)

  const again = await (await startSweep(smallSweep())).result()
  expect(again.verdict).toEqual(result.verdict)
  expect(await claimsIn(system.storeDir)).toHaveLength(claims.length)
  const progress = await sweep.query<RunProgress>('progress')
  expect(progress.stages.filter((s) => s.stage === 'trial').map((s) => s.state)).toEqual(Array(8).fill('done'))
})
