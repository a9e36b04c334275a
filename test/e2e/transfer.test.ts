import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { WorkflowHandle } from '@temporalio/client'
import type { AlmrLrSweepResult } from '@cpt/contracts/almr-lr-sweep'
import type { RunProgress } from '@cpt/contracts/cpt-run'
import { controlQueue } from '@cpt/contracts/ids'
import type { ModelTransferInput, ModelTransferResult } from '@cpt/contracts/model-transfer'
import { cpt } from '../harness/cli.ts'
import { failureOf, pageOf, type RunHandle } from '../harness/runs.ts'
import { smallSweep } from '../harness/small-sweep.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { claimsIn, jobsIn, nothingLeft } from '../harness/store.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

type Transfer = WorkflowHandle<(input?: ModelTransferInput) => Promise<ModelTransferResult>>

const batch = 4096
let system: System
let swept: AlmrLrSweepResult
beforeAll(async () => {
  system = await startSmallSystem()
  const sweep = await system.client.workflow.start<(input: unknown) => Promise<AlmrLrSweepResult>>('almrLrSweep', { taskQueue: controlQueue, workflowId: 'sweep/proxy', args: [smallSweep({ grid: { almr: [0.3, 0.6], peakLrs: [1e-3], seeds: [1] }, choice: { retentionToleranceNats: 5 } })] })
  swept = await sweep.result()
})
afterAll(() => system.stop())

const startTransfer = (input: unknown): Promise<Transfer> =>
  system.client.workflow.start('modelTransfer', { taskQueue: controlQueue, workflowId: `transfer/small-${randomUUID().slice(0, 8)}`, args: [input as ModelTransferInput] })
const small = (over: ModelTransferInput = {}): ModelTransferInput => ({ verdict: swept.verdictRef, name: 'small', confirmation: { neighbours: 'almr' }, phase: { tokens: 8 * batch }, ...over })
const asked = (transfer: Transfer) => until(`${transfer.workflowId} to ask for approval`, async () => (await transfer.query<RunProgress>('progress')).asks ?? null, 600)
const answer = (transfer: Transfer, given: unknown) => transfer.executeUpdate<string, [unknown]>('approve', { args: [given] }).catch((e: unknown) => (e instanceof Error && e.cause instanceof Error ? e.cause.message : String(e)))

test('a choice is confirmed on the target beside its neighbours, approved, and trained with lineage to the sweep', async () => {
  const before = new Set((await claimsIn(system.storeDir)).map((c) => c.key))
  const transfer = await startTransfer(small())
  expect(await answer(transfer, { by: 'ann' })).toContain('nothing to approve yet')
  await asked(transfer)
  const page = await pageOf(transfer)
  expect(page).toMatch(/Waits for approval[^]*\| chosen.*\| (?:yes|no)[^]*predicted by sweep\/proxy/)
  expect(page).toContain('"approved": true')
  // the corpus and its scores are the sweep's: nothing of the data is done again
  const since = (await claimsIn(system.storeDir)).filter((c) => !before.has(c.key)).map((c) => c.key)
  expect(since.filter((key) => !/^trial\/|^base\/perplexity$/.test(key))).toEqual([])

  expect(await answer(transfer, { reason: 'fine' })).toContain('by: expected')
  expect(await answer(transfer, { by: 'ann', reason: 'as predicted' })).toContain('approved')
  expect(await answer(transfer, { by: 'bob', approved: false })).toMatch(/already approved by ann|begins|not found|completed/)
  const result = await transfer.result()
  expect(result).toMatchObject({ state: 'trained', approval: { by: 'ann', approved: true }, almr: swept.verdict.chosen?.almr, peakLr: (swept.verdict.chosen?.peakLr ?? 0) / 2, run: { result: { tokens: 8 * batch } } })
  expect(result.confirmation.points.map((p) => p.role)).toContain('chosen')
  for (const point of result.confirmation.points) expect(point).toMatchObject({ predicted: expect.anything() as unknown, found: expect.anything() as unknown })

  const lineage = await readFile(join(result.run?.result.model ?? '', 'lineage.json'), 'utf8')
  expect(lineage).toContain(swept.verdictRef.sha256)
  expect(lineage).toContain('confirmation on this model')
  await nothingLeft(system.storeDir)
})

test('a transfer that a person refuses ends without a run', async () => {
  const transfer = await startTransfer(small())
  await asked(transfer)
  expect(await pageOf(transfer)).toContain(`npx cpt approve ${transfer.workflowId}`)
  expect((await cpt(system, 'approve', transfer.workflowId, '--refuse', '--reason', 'not now')).stdout).toBe('refused: the transfer ends without a run\n')
  expect(await transfer.result()).toMatchObject({ state: 'refused', run: null, approval: { reason: 'not now' } })
})

test('what the run on the target waits for stands on the page of its transfer, whose pause is the run\'s', async () => {
  const transfer = await startTransfer(small({ phase: { tokens: 100_000 * batch } }))
  await asked(transfer)
  expect(await answer(transfer, { by: 'ann', reason: 'as predicted' })).toContain('approved')
  const run = system.client.workflow.getHandle(`${transfer.workflowId}/run`)
  const waits = await until('the transfer to tell what its run waits for', async () => (await transfer.query<RunProgress>('progress')).waits?.[0] ?? null, 600)
  expect(waits).toMatchObject({ workflowId: run.workflowId, stage: 'transfer/round-1/sample-mixture', park: 1 })
  const page = await pageOf(transfer)
  expect(page).toContain(`[its page](/namespaces/cpt/workflows/${encodeURIComponent(run.workflowId)})`)
  expect(page).toContain(`"stage": "${waits.stage}"`)
  expect(page).toContain(`**Waiting for a person at ${run.workflowId}`)

  const pausedOf = (paused: boolean) => until(`the run to be ${paused ? 'paused' : 'resumed'}`, async () => (await run.query<RunProgress>('progress')).paused === paused || null, 120)
  await transfer.executeUpdate('pause', { args: [{ by: 'ann' }] })
  await pausedOf(true)
  await transfer.executeUpdate('resume', { args: [{ by: 'ann' }] })
  await pausedOf(false)

  await run.executeUpdate('resolveFailure', { args: [{ stage: waits.stage, park: waits.park, action: 'abort', by: 'ann', reason: 'too little text' }] })
  await expect(transfer.result()).rejects.toThrow()
  const after = await transfer.query<RunProgress>('progress')
  expect(after.waits).toBeUndefined()
  expect(await pageOf(transfer)).toMatch(/Ended without a result[^]*\/run` ended before the target was trained: .*too little text/)
  await nothingLeft(system.storeDir)
})

test('without evidence it is refused, and so is evidence of another digest, at once and by path', async () => {
  const refusalOf = async (input: unknown) => (await failureOf((await startTransfer(input)) as unknown as RunHandle)).problems.map((p) => `${p.path}: ${p.expected}`).join('\n')
  expect(await refusalOf({})).toMatch(/^verdict: .*override/)
  expect(await refusalOf(small({ verdict: { ...swept.verdictRef, sha256: 'f'.repeat(64) } }))).toMatch(/^verdict: the digest that was cited/)
  expect(await refusalOf(small({ verdict: { ...swept.verdictRef, uri: `store:${'0'.repeat(64)}/verdict.json` } }))).toMatch(/^verdict: the verdict of a sweep that is in this store/)
  expect(await refusalOf(small({ lrFactor: 2 }))).toMatch(/^lrFactor: at most 1/)
  expect(await refusalOf(small({ target: { model: 'samples:nowhere/' } }))).toMatch(/^target\.model: a file or folder/)
  expect(await refusalOf(small({ override: { almr: 0.5, peakLr: 1e-3, reason: ' ', by: 'ann' } }))).toMatch(/^override\.reason/)
})

test('an override stands in the place of evidence, on the page with its reason; cancelled, nothing of it is left', async () => {
  const { run: shared } = smallSweep()
  const transfer = await startTransfer({ name: 'bold', override: { almr: 0.4, peakLr: 1e-3, reason: 'the board wants it', by: 'ann' }, confirmation: { tokens: 100 * batch }, phase: { tokens: 8 * batch }, run: shared })
  await until('a trial on the target to take steps', async () => (await jobsIn(system.storeDir)).find((j) => j.isRunning && (j.beat?.step ?? 0) >= 1) ?? null, 600)
  expect(await pageOf(transfer)).toMatch(/No sweep stands behind this choice[^]*Overridden by `ann`: `the board wants it`/)
  await transfer.cancel()
  await expect(transfer.result()).rejects.toThrow('cancelled')
  await nothingLeft(system.storeDir)
})
