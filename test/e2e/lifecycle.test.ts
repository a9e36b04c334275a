import { execFile } from 'node:child_process'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openStore } from '@cpt/activities/artifact-store/open-store'
import { collectGarbage } from '@cpt/activities/gc/collect-garbage'
import { runsOf } from '@cpt/activities/gc/runs'
import type { CptRunResult } from '@cpt/contracts/cpt-run'
import { cpt } from '../harness/cli.ts'
import { globalBatchTokens, smallRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { attributesOf, lineOf, pageOf, progressOf, resultOf, startRun } from '../harness/runs.ts'
import { claimsIn, jobsIn, nothingLeft } from '../harness/store.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

const execute = promisify(execFile)
const stages = [
  'ingest', 'filter', 'dedup-signatures', 'dedup', 'decontaminate', 'train-topic-classifier/en', 'train-topic-classifier/zh', 'classify-topics', 'hold-out', 'tokenize', 'score-ppl', 'count-strata', 'count-funnel',
  'synthesize-qa', 'tokenize/synthetic', 'count-strata/synthetic', 'base/perplexity', 'base/gaokao-history',
  ...['stage-1/round-1', 'stage-1/round-2', 'stage-2/round-1'].flatMap((round) => ['sample-mixture', 'train', 'compare-perplexity'].map((what) => `${round}/${what}`)),
  'final/gaokao-history', 'final/compare-perplexity', 'compare/gaokao-history', 'export-model',
]
const trainedTokens = (16 + 4) * 4096

let system: System
beforeAll(async () => {
  system = await startSmallSystem()
})
afterAll(() => system.stop())

let first: CptRunResult
let annsRun: string

test('two runs that ask for the same at the same moment share every job, and both end with the model', async () => {
  // who asks is no part of any stage's identity: two people, one work
  const runs = await Promise.all([startRun(system, 'ann', smallRun()), startRun(system, 'bob', smallRun())])
  const [ann, bob] = await Promise.all(runs.map((run) => resultOf(run, 600)))
  first = ann!
  annsRun = runs[0].workflowId

  expect(ann!.verdict).toBe('pass')
  expect(ann!.tokens).toBe(trainedTokens)
  expect(ann!.model).not.toBeNull()
  expect({ ...bob, report: '' }).toEqual({ ...ann, report: '' })

  const claims = await claimsIn(system.storeDir)
  expect(claims.filter((c) => c.attempt > 1)).toEqual([])
  const jobs = await jobsIn(system.storeDir)
  expect(jobs.length).toBe(claims.length)
  expect(jobs.map((j) => j.end?.endClass)).toEqual(jobs.map(() => 'done'))
  await nothingLeft(system.storeDir)

  for (const run of runs) {
    const progress = await progressOf(run)
    expect(progress.stages.map((s) => s.key).sort()).toEqual([...stages].sort())
    expect(progress.stages.filter((s) => s.state !== 'done' && s.state !== 'reused')).toEqual([])
    expect(progress).toMatchObject({ status: 'done', parked: [], recoveries: 0 })
    expect(lineOf(progress, 'ingest')?.note).toMatch(/^\d+ lines = \d+ kept \+ \d+ quarantined$/)
    expect(await pageOf(run)).toMatch(/\*\*Done\*\*[^]*Report: /)
    expect(await attributesOf(run)).toMatchObject({ CptKind: 'cptRun', CptStatus: 'done', CptOwner: 'tests', CptModel: 'samples:base/', CptBackend: 'local', CptRecoveries: 0, CptAlmr: 0.4, CptLr: 0.001 })
  }
})

test('what was committed keeps the invariants: lines, plans, targets, digests, and a model that transformers loads', async () => {
  const check = fileURLToPath(new URL('../harness/check_store.py', import.meta.url))
  const { stdout } = await execute(system.config.python, [check, system.storeDir, first.model!], { env: system.config.jobEnv, maxBuffer: 1 << 24 })
  const found = JSON.parse(stdout) as {
    commits: number
    ingest: { lines: number; kept: number; quarantined: number; counted: number[] }[]
    plans: { planned: number; stated: number; budget: number }[]
    phases: { steps: number; tokens: number; budget: number; stated: number }[]
    model: { parameters: number; loss: number; files: string[] }
  }
  expect(found.ingest).toHaveLength(1)
  for (const { lines, kept, quarantined, counted } of found.ingest) {
    expect(kept + quarantined).toBe(lines)
    expect(quarantined).toBeGreaterThan(0)
    expect(counted).toEqual([kept, quarantined])
  }
  expect(found.plans).toHaveLength(3)
  for (const { planned, stated, budget } of found.plans) expect([planned, stated]).toEqual([budget + 1, budget + 1])
  expect(found.phases).toHaveLength(3)
  for (const { tokens, budget, stated } of found.phases) expect([tokens, stated]).toEqual([budget, budget])
  expect(found.phases.reduce((sum, p) => sum + p.tokens, 0)).toBe(trainedTokens)
  expect(found.model.parameters).toBeGreaterThan(100_000)
  expect(found.model.loss).toBeLessThan(12)
  expect(found.model.files).toEqual(expect.arrayContaining(['README.md', 'config.json', 'lineage.json', 'model.safetensors', 'tokenizer.json']))
})

test('the command line shows a document with all that was decided about it, by its name, its line or its fate', async () => {
  const sampled = await cpt(system, 'corpus', 'inspect', annsRun, '--dropped-by', 'hold-out/held-out', '--sample', '1', '--json')
  expect(sampled.stderr).toBe('')
  const [dropped] = (JSON.parse(sampled.stdout) as { documents: { id: string; source: string; line: number; text: string }[] }).documents
  for (const name of [dropped!.id, `${dropped!.source}:${dropped!.line}`]) {
    const shown = await cpt(system, 'corpus', 'inspect', annsRun, name)
    expect(shown.exitCode).toBe(0)
    expect(shown.stdout.split('\n')[0]).toBe(dropped!.id)
    expect(shown.stdout).toMatch(/filter {9}✓ kept\n {2}dedup {10}✓ kept.*\n {2}decontaminate {2}✓ kept\n {2}hold-out {7}✗ held/)
    expect(shown.stdout).toContain('tokens         none: dropped before')
  }
  const trained = await cpt(system, 'corpus', 'inspect', annsRun, '--kept', '--sample', '40')
  expect(trained.stdout).toMatch(/perplexity {5}\d/)
  expect(trained.stdout).toMatch(/drawn {10}plan 1 \(tokens 0 to /)
  expect(await cpt(system, 'corpus', 'inspect', annsRun, 'nowhere:1')).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('none of ') as unknown })
  expect(await cpt(system, 'corpus', 'inspect', annsRun, '--dropped-by', 'gravity')).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('These have: filter, dedup, decontaminate, hold-out') as unknown })
})

test('the report is one file that loads nothing from outside', async () => {
  const html = await readFile(first.report, 'utf8')
  expect(html).toMatch(/^<!doctype html>/i)
  expect(html).not.toMatch(/<(?:script|img|iframe|link|source|image)\b[^>]*(?:src|href)\s*=\s*["']?(?:https?:|\/\/)/i)
  expect(html).not.toMatch(/@import|url\(\s*["']?(?:https?:|\/\/)/i)
  for (const key of ['stage-1', 'stage-2', 'gaokao-history', 'retention', 'What became of the documents of each source']) expect(html).toContain(key)
})

test('a later run of the same input starts no job at all', async () => {
  const before = await claimsIn(system.storeDir)
  const startedMs = performance.now()
  const run = await startRun(system, 'again', smallRun())
  const result = await resultOf(run)
  expect((performance.now() - startedMs) / 1000).toBeLessThan(60)
  expect({ ...result, report: '' }).toEqual({ ...first, report: '' })
  expect(await claimsIn(system.storeDir)).toHaveLength(before.length)
  const progress = await progressOf(run)
  expect(progress.stages.map((s) => s.state)).toEqual(progress.stages.map(() => 'reused'))
  expect(progress.stages.map((s) => s.attempts)).toEqual(progress.stages.map(() => 0))
})

test('one changed setting repeats only what stands on it', async () => {
  const before = await claimsIn(system.storeDir)
  const run = await startRun(system, 'other-decay', smallRun({ training: { ...smallRun().training, decayTokens: 2 * 4096 } }))
  await resultOf(run)
  const anew = (await claimsIn(system.storeDir)).length - before.length
  const progress = await progressOf(run)
  const computed = progress.stages.filter((s) => s.state === 'done').map((s) => s.key)
  expect(computed).not.toContain('tokenize')
  expect(computed).toEqual(expect.arrayContaining(['stage-2/round-1/train', 'export-model']))
  expect(anew).toBe(computed.length)
  await nothingLeft(system.storeDir)
})

test('a training on two processes is a run like any other', async () => {
  const { plan, placement } = smallRun()
  const stage = { ...plan![0]!, rounds: 1, tokens: 6 * globalBatchTokens }
  const run = await startRun(system, 'two-processes', smallRun({ name: 'two-processes', plan: [stage], placement: { ...placement, train: { ...placement!.train, processesPerNode: 2 } } }))
  const result = await resultOf(run, 600)
  expect(result).toMatchObject({ verdict: 'pass', tokens: 6 * globalBatchTokens })
  expect(result.model).not.toBeNull()
  const jobs = await jobsIn(system.storeDir)
  const ranks = await Promise.all(jobs.map(async (j) => JSON.parse(await readFile(join(j.folder, 'ranks.json'), 'utf8').catch(() => 'null')) as { pids: number[] } | null))
  const trained = jobs.filter((_, i) => ranks[i]?.pids.length === 2)
  expect(trained.map((j) => j.end?.endClass)).toEqual(['done'])
  expect(trained[0]?.beat).toMatchObject({ gradNorm: expect.any(Number), memoryPeakBytes: expect.any(Number) })
  await nothingLeft(system.storeDir)
})

test('gc keeps all that these runs need, and frees it once they are forgotten', async () => {
  const store = openStore(system.config)
  // ten minutes from now everything is older than a grace of none
  const gc = () => collectGarbage({ store, config: system.config, runs: runsOf(system.client, store), now: () => Date.now() + 600_000 }, { olderThanMs: 0, apply: true })
  const records = await store.list('commits/')
  const swept = (await gc()).swept.map((s) => s.kind)
  expect(swept).toContain('folders of ended jobs')
  expect(swept).not.toContain('results')
  expect(swept).not.toContain('decisions')
  expect(await store.list('commits/')).toEqual(records)

  const run = await startRun(system, 'after-gc', smallRun())
  expect({ ...(await resultOf(run)), report: '' }).toEqual({ ...first, report: '' })
  expect((await progressOf(run)).stages.filter((s) => s.state !== 'reused')).toEqual([])
  expect(await jobsIn(system.storeDir)).toEqual([])

  const { client, server, config } = system
  for await (const { workflowId, runId } of client.workflow.list({ query: "WorkflowType = 'cptRun'" })) await client.workflowService.deleteWorkflowExecution({ namespace: server.namespace, workflowExecution: { workflowId, runId } })
  await until('the server to have forgotten every run', async () => (await client.workflow.count("WorkflowType = 'cptRun'")).count === 0)
  await rm(config.reportsDir, { recursive: true })
  await gc()
  expect((await store.entries('')).map((e) => e.key)).toEqual([])
})
