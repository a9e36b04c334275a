import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { localDiskStore } from '@cpt/activities/artifact-store/local-disk'
import { loadConfig } from '@cpt/activities/config'
import type { CommitRecord } from '@cpt/contracts/artifact'
import { ComparePerplexityResult } from '@cpt/contracts/evaluate-perplexity'
import { ExtendVocabularyResult } from '@cpt/contracts/extend-vocabulary'
import { failureOf, lineOf, parkOf, progressOf, resolve, resultOf, startRun } from '../harness/runs.ts'
import { briefRun, makeSmallCorpus } from '../harness/small-run.ts'
import { commitsOf, jobsIn, nothingLeft } from '../harness/store.ts'
import { startSystem, type System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

const execute = promisify(execFile)
const harness = (name: string): string => fileURLToPath(new URL(`../harness/${name}`, import.meta.url))
const digestOf = async (path: string): Promise<string> => createHash('sha256').update(await readFile(path)).digest('hex')

let corpus: Awaited<ReturnType<typeof makeSmallCorpus>>
let system: System
let tokenizer = ''
beforeAll(async () => {
  corpus = await makeSmallCorpus()
  await execute(loadConfig().python, [harness('small_tokenizer.py'), corpus.dir])
  tokenizer = await digestOf(join(corpus.dir, 'tokenizer.json'))
  system = await startSystem({ roots: { small: corpus.dir } })
})
afterAll(async () => {
  await system.stop()
  await corpus.remove()
})

const only = (records: CommitRecord[], stage: string): CommitRecord => {
  const found = records.filter((r) => r.stage === stage)
  if (found.length !== 1) throw new Error(`${found.length} commits of ${stage}`)
  return found[0]!
}

/** Kills the first job that is seen to run; returns its folder. */
const killOne = async (): Promise<string> =>
  until('a job', async () => {
    const job = (await jobsIn(system.storeDir)).find((j) => j.isRunning && j.end === null && j.started !== null)
    if (job?.started == null) return null
    process.kill(job.started.pid, 'SIGKILL')
    return job.folder
  }, 300)

test('a base with another tokenizer is extended, trained, compared per byte and exported, and a job killed on the way costs nothing', async () => {
  const run = await startRun(system, 'vocabulary', briefRun({ base: { tokenizer: 'small:tokenizer.json', vocabularyMultipleOf: 64 }, training: { ...briefRun().training, guard: null }, gate: { retentionToleranceNats: 50, minGainNats: 50, benchmarkMargin: 1, z: 0 }, name: 'vocabulary' }))
  const folder = await killOne()
  // four steps teach no 50 nats: the gate asks, and is told to publish
  const park = await parkOf(run, 'gate', 1, 600)
  expect(park).toMatchObject({ type: 'GateFailed', cause: expect.stringMatching(/^The model learned too little zh: \d+\.\d{3} nats\/token less than asked for\.$/) as unknown })
  await resolve(run, { stage: 'gate', park: 1, action: 'skip', reason: 'as expected' })
  const result = await resultOf(run, 600)
  const progress = await progressOf(run)
  expect(['killed', 'done']).toContain((await jobsIn(system.storeDir)).find((j) => j.folder === folder)?.end?.endClass)
  expect(progress.stages[0]).toMatchObject({ key: 'base/extend-vocabulary', state: 'done', note: expect.stringMatching(/^4096 rows before, \d+ after: \d+ kept, \d+ from pieces/) as unknown })

  const records = await commitsOf(system.storeDir)
  const extended = ExtendVocabularyResult.parse(only(records, 'extend-vocabulary').result)
  expect(extended.rowsBefore).toBe(4096)
  expect(extended.rowsAfter % 64).toBe(0)
  expect(Math.min(extended.copied, extended.averaged, extended.rowsAfter - extended.rowsBefore)).toBeGreaterThan(256)
  const made = await localDiskStore({ store: system.storeDir }).localPath(extended.model)
  const [config, record] = await Promise.all(['config.json', 'vocabulary-extension.json'].map(async (name) => JSON.parse(await readFile(join(made, name), 'utf8')) as Record<string, unknown>))
  expect(config).toMatchObject({ vocab_size: extended.rowsAfter })
  expect(record).toMatchObject({ method: 'subword-mean', tokenizerAfter: tokenizer, weightsSha256: extended.weightsSha256, padToMultipleOf: 64 })
  expect(await digestOf(join(made, 'tokenizer.json'))).toBe(tokenizer)

  // everything after it reads the new tokens, and the training starts from the new rows; without a guard, for that is what the input says
  const trained = only(records, 'train')
  expect(trained.request).toMatchObject({ start: { kind: 'model', model: { sha256: extended.model.sha256 } }, tokenizer: { sha256: tokenizer } })
  expect(trained.request).not.toHaveProperty('guard')
  const tokenized = records.filter((r) => r.stage === 'tokenize')
  expect(tokenized.length).toBeGreaterThan(0)
  for (const { request } of tokenized) expect(request).toMatchObject({ tokenizer: { sha256: tokenizer } })

  // the base was measured with its own tokenizer, so the comparison is per byte
  const compared = records.filter((r) => r.stage === 'compare-perplexity')
  for (const { request } of compared) expect(request).toMatchObject({ across: 'tokenizers' })
  const { groups } = ComparePerplexityResult.parse(compared[0]?.result)
  expect(groups.map((g) => g.group).sort()).toEqual(['en', 'retention', 'zh'])
  for (const { nllBefore, deltaNll, deltaNllPerByte } of groups) {
    expect(nllBefore).toBeGreaterThan(1)
    expect(Math.sign(deltaNllPerByte)).toBe(Math.sign(deltaNll))
  }
  const report = await readFile(result.report, 'utf8')
  expect(report).toContain('Change, nats/byte')
  expect(report).toContain('This run has another tokenizer than its base')

  expect(result.verdict).toBe('fail')
  expect(lineOf(progress, 'export-model')?.state).toBe('done')
  expect(await digestOf(join(result.model!, 'tokenizer.json'))).toBe(tokenizer)
  const { stdout } = await execute(system.config.python, [harness('check_store.py'), system.storeDir, result.model!], { env: system.config.jobEnv, maxBuffer: 1 << 24 })
  const { model, phases } = JSON.parse(stdout) as { model: { parameters: number; loss: number }; phases: { tokens: number; budget: number }[] }
  expect(model.loss).toBeLessThan(12)
  expect(phases.map((p) => p.tokens)).toEqual(phases.map((p) => p.budget))
  await nothingLeft(system.storeDir)
})

test('a file that is no tokenizer parks the extension and says so; one that is not there ends the run at once', async () => {
  const run = await startRun(system, 'no-tokenizer', briefRun({ base: { tokenizer: 'small:zh.jsonl' } }))
  const park = await parkOf(run, 'base/extend-vocabulary')
  expect(park).toMatchObject({ type: 'BadRequest', actions: ['retry', 'abort'], message: expect.stringMatching(/extend-vocabulary: .*zh\.jsonl is not a tokenizer\.json/) as unknown })
  await resolve(run, { stage: 'base/extend-vocabulary', park: 1, action: 'abort', reason: 'wrong file' })
  expect((await failureOf(run)).type).toBe('Aborted')
  const missing = await failureOf(await startRun(system, 'missing-tokenizer', briefRun({ base: { tokenizer: 'small:none.json' } })))
  expect(missing.problems.map((p) => p.path)).toEqual(['base.tokenizer'])
  await nothingLeft(system.storeDir)
})
