import { afterAll, beforeAll, expect, test } from 'vitest'
import { parkOf, progressOf, resetRun, resolve, resultOf, startRun, type ResetPoint, type RunHandle } from '../harness/runs.ts'
import { strictRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { claimsIn, jobsIn, nothingLeft, type ClaimEntry } from '../harness/store.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

let system: System
beforeAll(async () => {
  system = await startSmallSystem()
})
afterAll(() => system.stop())

/** Asks a person twice: about the lines of `ingest`, and at the gate. */
const asking = () => strictRun({ gate: { retentionToleranceNats: 0, minGainNats: 50, benchmarkMargin: 1, z: 1.64 } })
const onIngest = { stage: 'ingest', park: 1, action: 'retry' as const, patch: { request: { maxQuarantineRatio: 0.1 } }, by: 'ann' }
const onGate = { stage: 'gate', park: 1, action: 'skip' as const, by: 'ann' }
const runIdOf = async (run: RunHandle) => (await run.describe()).runId
const firstRunIdOf = async (run: RunHandle) => (await run.describe()).raw.workflowExecutionInfo?.firstRunId

/** Where a history stands just before the task that took the decision on a stage. */
const takes = (stage: string): ResetPoint => (events) => {
  const taken = events.findIndex((e) => {
    const data = e.workflowExecutionUpdateAcceptedEventAttributes?.acceptedRequest?.input?.args?.payloads?.[0]?.data
    return data != null && Buffer.from(data).toString('utf8').includes(`"stage":"${stage}"`)
  })
  return events.slice(0, taken).findLastIndex((e) => e.workflowTaskCompletedEventAttributes != null)
}
const toItsBeginning: ResetPoint = () => 0

let run: RunHandle
let claims: ClaimEntry[]
const nothingComputed = async (): Promise<void> => {
  expect(await claimsIn(system.storeDir)).toEqual(claims)
  expect((await jobsIn(system.storeDir)).filter((j) => j.isRunning)).toEqual([])
}

test('a parked run that is reset to its beginning parks at the same place; nothing is computed again', async () => {
  run = await startRun(system, 'reset', asking())
  await parkOf(run, 'ingest')
  claims = await claimsIn(system.storeDir)
  expect(claims.map((c) => c.key)).toContain('ingest')
  const [runId, chain] = [await runIdOf(run), await firstRunIdOf(run)]
  run = await resetRun(system, run, toItsBeginning)
  expect(await runIdOf(run)).not.toBe(runId)
  expect(await parkOf(run, 'ingest')).toMatchObject({ park: 1, type: 'TooMuchQuarantined' })
  // it asks for its jobs in the same name as before, which is how the reaper knows that it lives
  expect(await firstRunIdOf(run)).toBe(chain)
  await nothingComputed()
})

test('a decision from before the point of a reset stands: repeated, it is answered so', async () => {
  expect(await resolve(run, onIngest)).toBe('retry accepted for ingest, park 1')
  await parkOf(run, 'gate', 1, 300)
  claims = await claimsIn(system.storeDir)
  run = await resetRun(system, run, (events) => events.findIndex((e) => e.workflowExecutionUpdateCompletedEventAttributes != null))
  expect(await resolve(run, { stage: 'ingest', park: 1, action: 'abort', by: 'bob' })).toBe('already decided: retry by ann')
  await parkOf(run, 'gate')
  expect((await progressOf(run)).decisions).toMatchObject([{ stage: 'ingest', park: 1, action: 'retry', by: 'ann' }])
  await nothingComputed()
})

test('a decision from after the point of a reset is sent again by the server before its stage has parked: refused, so the run asks again', async () => {
  run = await resetRun(system, run, toItsBeginning)
  await parkOf(run, 'ingest')
  expect((await progressOf(run)).decisions).toEqual([])
  expect(((await run.fetchHistory()).events ?? []).filter((e) => e.workflowExecutionUpdateAdmittedEventAttributes != null).length).toBeGreaterThan(0)
  expect(await resolve(run, onIngest)).toBe('retry accepted for ingest, park 1')
  await parkOf(run, 'gate')
  await nothingComputed()
})

test('reset to the task that took it, a decision is taken again without a person', async () => {
  run = await resetRun(system, run, takes('ingest'))
  await parkOf(run, 'gate')
  expect((await progressOf(run)).decisions).toMatchObject([{ stage: 'ingest', park: 1, action: 'retry', by: 'ann' }])
  expect(await resolve(run, onIngest)).toBe('already decided: retry by ann')
  await nothingComputed()
})

test('a run that has ended is reset and ends with the same result', async () => {
  expect(await resolve(run, onGate)).toBe('skip accepted for gate, park 1')
  const result = await resultOf(run)
  expect(result).toMatchObject({ verdict: 'fail', model: expect.stringContaining('model'), tokens: 4 * 4096 })
  claims = await claimsIn(system.storeDir)
  run = await resetRun(system, run, takes('gate'))
  expect({ ...(await resultOf(run)), report: '' }).toEqual({ ...result, report: '' })
  expect(await progressOf(run)).toMatchObject({ status: 'done', decisions: [{ stage: 'ingest', by: 'ann' }, { stage: 'gate', action: 'skip', by: 'ann' }] })
  // every job that was ever allowed to start was the first and only one of its stage
  expect(claims.filter((c) => c.attempt > 1)).toEqual([])
  expect(new Set(claims.map((c) => `${c.fingerprint}/${c.range}`)).size).toBe(claims.length)
  await nothingComputed()
  await nothingLeft(system.storeDir)
})

test('a pause from after the point of a reset is sent again too, and holds the run until it is resumed', async () => {
  run = await startRun(system, 'reset-paused', asking())
  await parkOf(run, 'ingest')
  expect(await run.executeUpdate<string, [unknown]>('pause', { args: [{ by: 'ann' }] })).toMatch(/^paused by ann/)
  run = await resetRun(system, run, toItsBeginning)
  await until('the run to be paused', async () => (await progressOf(run).catch(() => null))?.status === 'paused')
  expect((await progressOf(run)).parked).toEqual([])
  expect(await run.executeUpdate<string, [unknown]>('resume', { args: [{ by: 'ann' }] })).toBe('resumed by ann')
  await parkOf(run, 'ingest')
  await nothingComputed()
  await run.cancel()
  await expect(run.result()).rejects.toThrow('cancelled')
})
