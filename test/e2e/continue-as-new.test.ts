import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CptRunInput, CptRunResult, RunProgress } from '@cpt/contracts/cpt-run'
import { makeSmallCorpus, smallRun } from '../harness/small-run.ts'
import { pageOf, parkOf, progressOf, resetRun, resolve, resultOf, startRun, type RunHandle } from '../harness/runs.ts'
import { claimsIn } from '../harness/store.ts'
import { startSystem, type System } from '../harness/system.ts'

/** A run with a park before its first round and one after its last. */
const longRun = (): CptRunInput => ({
  ...smallRun(),
  evaluation: { windowTokens: 128, maxTokensPerDoc: 128, benchmarks: [{ name: 'broken', path: 'small:broken-bench.jsonl', kind: 'mcq', shots: 0 }] },
})
const skipped = async (run: RunHandle, stage: string): Promise<void> => {
  await parkOf(run, stage)
  await resolve(run, { stage, park: 1, action: 'skip', by: 'ann' })
}
const executionsOf = async (system: System, run: RunHandle): Promise<string[]> => {
  const found = []
  for await (const execution of system.client.workflow.list({ query: `WorkflowId = '${run.workflowId}'` })) found.push(execution.status.name)
  return found.sort()
}
const keysOf = (progress: RunProgress): string[] => progress.stages.map((s) => s.key)

let corpus: Awaited<ReturnType<typeof makeSmallCorpus>>
let whole: { result: CptRunResult; progress: RunProgress }
let system: System
beforeAll(async () => {
  corpus = await makeSmallCorpus()
  const roots = { small: corpus.dir }
  const undisturbed = await startSystem({ roots })
  try {
    const run = await startRun(undisturbed, 'whole', longRun())
    await skipped(run, 'base/broken')
    await skipped(run, 'final/broken')
    whole = { result: await resultOf(run, 600), progress: await progressOf(run) }
    // a server that suggests to continue as new after some events, on what the first system has committed
    system = await startSystem({ roots, prepare: (stateDir) => cp(undisturbed.storeDir, join(stateDir, 'store'), { recursive: true }), serverSettings: { 'limit.historyCount.suggestContinueAsNew': 60 } })
  } finally {
    await undisturbed.stop()
  }
})
afterAll(async () => {
  await system.stop()
  await corpus.remove()
})

let run: RunHandle

test('a run that continues as new between its rounds asks for exactly the same work, keeps its page, and answers old decisions from the record', async () => {
  const before = new Set((await claimsIn(system.storeDir)).map((c) => JSON.stringify(c)))
  run = await startRun(system, 'long', longRun())
  // while a line is parked the run does not continue as new, whatever the server suggests
  await parkOf(run, 'base/broken')
  expect(await executionsOf(system, run)).toEqual(['RUNNING'])
  await resolve(run, { stage: 'base/broken', park: 1, action: 'skip', by: 'ann' })

  await parkOf(run, 'final/broken')
  const executions = await executionsOf(system, run)
  expect(executions.filter((status) => status === 'CONTINUED_AS_NEW').length).toBeGreaterThanOrEqual(1)
  expect(executions.filter((status) => status === 'RUNNING')).toHaveLength(1)
  // the decision was made in an execution that is closed
  expect(await resolve(run, { stage: 'base/broken', park: 1, action: 'retry', by: 'bob' })).toBe('already decided: skip by ann')
  expect(await pageOf(run)).toMatch(/Parked: final\/broken[^]*`ingest`/)

  await resolve(run, { stage: 'final/broken', park: 1, action: 'skip', by: 'ann' })
  const result = await resultOf(run)
  expect({ ...result, report: '' }).toEqual({ ...whole.result, report: '' })
  const progress = await progressOf(run)
  expect(keysOf(progress).sort()).toEqual(keysOf(whole.progress).sort())
  expect(progress.stages.filter((s) => s.fingerprint !== whole.progress.stages.find((w) => w.key === s.key)?.fingerprint)).toEqual([])
  expect(progress.decisions.map((d) => d.stage)).toEqual(['base/broken', 'final/broken'])
  // broken benchmarks start jobs, nothing else does: every request of every execution was one of the undisturbed run
  const started = (await claimsIn(system.storeDir)).filter((c) => !before.has(JSON.stringify(c))).map((c) => c.key)
  expect(started.filter((key) => !key.endsWith('/broken'))).toEqual([])
})

test('its last execution, reset to its beginning, asks again what was decided in it and nothing else, and ends the same', async () => {
  const claims = await claimsIn(system.storeDir)
  run = await resetRun(system, run, () => 0)
  await parkOf(run, 'final/broken')
  // the round's own work was committed; what a closed execution decided is still on record
  expect((await claimsIn(system.storeDir)).filter((c) => !c.key.endsWith('/broken'))).toEqual(claims.filter((c) => !c.key.endsWith('/broken')))
  expect((await progressOf(run)).decisions.map((d) => d.stage)).toEqual(['base/broken'])
  expect(await resolve(run, { stage: 'base/broken', park: 1, action: 'retry', by: 'bob' })).toBe('already decided: skip by ann')
  await resolve(run, { stage: 'final/broken', park: 1, action: 'skip', by: 'ann' })
  expect({ ...(await resultOf(run)), report: '' }).toEqual({ ...whole.result, report: '' })
})
