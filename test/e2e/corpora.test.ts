import { randomUUID } from 'node:crypto'
import { appendFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { WorkflowHandle } from '@temporalio/client'
import type { CorpusPreparationResult } from '@cpt/contracts/committed-corpus'
import type { CptRunInput, RunProgress } from '@cpt/contracts/cpt-run'
import { controlQueue } from '@cpt/contracts/ids'
import { failureOf, pageOf, parkOf, progressOf, resolve, resultOf, stageIs, startRun, type RunHandle } from '../harness/runs.ts'
import { briefRun, makeSmallCorpus } from '../harness/small-run.ts'
import { claimsIn, nothingLeft } from '../harness/store.ts'
import { startSystem, type System } from '../harness/system.ts'

let small: Awaited<ReturnType<typeof makeSmallCorpus>>
let system: System
beforeAll(async () => {
  small = await makeSmallCorpus()
  system = await startSystem({ roots: { small: small.dir } })
})
afterAll(() => system.stop().finally(() => small.remove()))

const { corpus: shared, ...rest } = briefRun()
const web = { name: 'web', ...shared }
const dataStages = ['ingest', 'filter', 'dedup-signatures', 'dedup', 'decontaminate', 'train-topic-classifier/en', 'train-topic-classifier/zh', 'classify-topics', 'hold-out', 'tokenize', 'score-ppl', 'count-strata', 'count-funnel']

type Preparation = WorkflowHandle<(input?: CptRunInput) => Promise<CorpusPreparationResult>>
const prepare = async (corpus: CptRunInput['corpus']): Promise<Preparation> =>
  await system.client.workflow.start('corpusPreparation', { taskQueue: controlQueue, workflowId: `corpus/${randomUUID().slice(0, 8)}`, args: [{ ...rest, corpus }] })
/** Parks, pages and decisions are the same for every kind of run. */
const asRun = ({ workflowId }: Preparation): RunHandle => system.client.workflow.getHandle(workflowId)
const statesOf = ({ stages }: RunProgress): Record<string, string> => Object.fromEntries(stages.map((s) => [s.key, s.state]))
const allReused = Object.fromEntries(dataStages.map((key) => [key, 'reused']))

test('a preparation parks and goes on like a run, and commits its corpus as it was carried out; done again it is unchanged', async () => {
  const first = await prepare({ ...web, maxQuarantineRatio: 0 })
  expect(await parkOf(asRun(first), 'ingest')).toMatchObject({ type: 'TooMuchQuarantined' })
  await resolve(asRun(first), { stage: 'ingest', park: 1, action: 'retry', patch: { request: { maxQuarantineRatio: 0.1 } } })
  const result = await first.result()
  expect(result).toMatchObject({ name: 'web', number: 1, unchanged: false })
  expect(result.docs).toBeGreaterThan(0)
  expect(result.tokens).toBeGreaterThan(result.docs)
  expect(Object.keys(statesOf(await progressOf(asRun(first))))).toEqual([...dataStages, 'commit-corpus'])
  expect(await pageOf(first)).toContain(`web #1: ${result.docs} documents, ${result.tokens} tokens`)

  const claims = await claimsIn(system.storeDir)
  const again = await prepare({ ...web, maxQuarantineRatio: 0.1 })
  expect(await again.result()).toEqual({ ...result, unchanged: true })
  expect(statesOf(await progressOf(asRun(again)))).toEqual({ ...allReused, 'commit-corpus': 'reused' })
  expect(await claimsIn(system.storeDir)).toHaveLength(claims.length)
  await nothingLeft(system.storeDir)
})

test('a preparation that takes personal data out looks for it, and does anew only what reads texts', async () => {
  const run = await prepare({ ...web, name: 'private', maxQuarantineRatio: 0.1, personalData: { placeholders: { phone: '[tel]' } } })
  await run.result()
  const states = statesOf(await progressOf(asRun(run)))
  expect(states).toMatchObject({ 'ingest': 'reused', 'decontaminate': 'reused', 'find-personal-data': 'done', 'classify-topics': 'reused', 'hold-out': 'done', 'tokenize': 'done' })
  expect(await pageOf(run)).toMatch(/in \d+ of \d+ documents/)
  await nothingLeft(system.storeDir)
})

test('a run takes the newest corpus of a name and makes nothing of it anew, though the files have moved on', async () => {
  await appendFile(join(small.dir, 'zh.jsonl'), '{"id": "new", "text": "后来才写的一篇，提交语料时还没有它。", "lang": "zh", "kind": "web"}\n')
  const claims = await claimsIn(system.storeDir)
  const run = await startRun(system, 'newest', { ...rest, corpus: { newest: 'web' } })
  await resultOf(run)
  expect(statesOf(await progressOf(run))).toMatchObject(allReused)
  expect(statesOf(await progressOf(run))).not.toHaveProperty('commit-corpus')
  expect(await pageOf(run)).toContain('corpus web #1')
  const stagesOf = (all: typeof claims) => new Set(all.map((c) => c.key))
  expect(stagesOf((await claimsIn(system.storeDir)).slice(claims.length)).has('ingest')).toBe(false)

  // which corpus it is was decided when the run began: one that is committed later is for later runs
  const later = await startRun(system, 'commits', { ...rest, corpus: web })
  await stageIs(later, 'commit-corpus', 'done')
  const after = await startRun(system, 'after', { ...rest, corpus: { newest: 'web' } })
  await stageIs(after, 'count-funnel', 'done')
  expect(await pageOf(after)).toContain('corpus web #2')
  expect(statesOf(await progressOf(after))).toMatchObject(allReused)
  for (const open of [later, after]) {
    await open.cancel()
    await open.result().catch(() => undefined)
  }
  await nothingLeft(system.storeDir)
})

test('an alias of a corpus that nobody has committed is refused by its path, with the names there are', async () => {
  const failure = await failureOf(await startRun(system, 'unknown', { ...rest, corpus: { newest: 'wbe' } }))
  expect(failure).toMatchObject({ type: 'InvalidInput', problems: [{ path: 'corpus.newest', expected: expect.stringContaining('there are: private, web; a run, sweep or corpusPreparation with corpus.name commits one') as unknown, got: '"wbe"' }] })
  const nameless = await prepare(shared)
  expect(await failureOf(asRun(nameless))).toMatchObject({ type: 'InvalidInput', problems: [{ path: 'corpus.name' }] })
})
