import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { loadConfig } from '@cpt/activities/config'
import type { CptRunInput } from '@cpt/contracts/cpt-run'

const run = promisify(execFile)

/** A few documents of the samples in a folder of their own, to be given to the system as root `small`. */
export const makeSmallCorpus = async (): Promise<{ dir: string; remove: () => Promise<void> }> => {
  const dir = await mkdtemp(join(tmpdir(), 'cpt-small-'))
  const config = loadConfig()
  await run(config.python, [fileURLToPath(new URL('small_corpus.py', import.meta.url)), join(config.home, 'samples'), dir])
  // readable, and of no use to any kind of benchmark
  await writeFile(join(dir, 'broken-bench.jsonl'), '{"id": "1", "question": "Which?", "options": null, "answer": "no letter"}\n')
  return { dir, remove: () => rm(dir, { recursive: true, force: true }) }
}

const sequenceTokens = 128
export const globalBatchTokens = 4096

/** The quickstart's lifecycle at the smallest size at which every stage still has something to do. */
export const smallRun = (over: CptRunInput = {}): CptRunInput => ({
  name: 'small',
  owner: 'tests',
  corpus: {
    sources: [
      { name: 'zh', path: 'small:zh.jsonl' },
      { name: 'en', path: 'small:en.jsonl' },
      { name: 'replay', path: 'small:replay.jsonl' },
      { name: 'retention', path: 'small:retention.jsonl', use: 'validate' },
      { name: 'dirty', path: 'small:dirty.jsonl' },
    ],
    maxQuarantineRatio: 0.1,
    holdOut: { minDocs: 2, maxDocChars: 600 },
    scoring: { windowTokens: 128, maxTokensPerDoc: 128, minTokens: 8 },
  },
  synthesis: { numDocs: 200 },
  plan: [
    { name: 'stage-1', rounds: 2, tokens: 16 * globalBatchTokens, order: 'perplexity', mixture: { languages: { zh: 0.4, en: 0.6 } }, reweight: true },
    { name: 'stage-2', rounds: 1, tokens: 4 * globalBatchTokens, order: 'random', mixture: { languages: { zh: 0.1, en: 0.7, synthetic: 0.2 } } },
  ],
  training: { sequenceTokens, globalBatchTokens, schedule: 'warmup-stable-decay', peakLr: 0.001, minLr: 0.0001, warmupTokens: 2 * globalBatchTokens, decayTokens: 4 * globalBatchTokens },
  evaluation: {
    windowTokens: 128,
    maxTokensPerDoc: 128,
    benchmarks: [{ name: 'gaokao-history', path: 'samples:bench/gaokao-bench-history.jsonl.zst', kind: 'mcq', shots: 1, limit: 4 }],
  },
  // what so little training does to a model is not what is tested
  gate: { retentionToleranceNats: 5, minGainNats: 0, benchmarkMargin: 1, z: 0 },
  placement: { data: { threads: 1 }, scoring: { threads: 1 }, train: { threads: 1, batchTokens: 4096 }, evaluate: { threads: 1 } },
  ...over,
})

/** Less of everything: one round, no synthetic text, no benchmark. */
export const briefRun = (over: CptRunInput = {}): CptRunInput =>
  smallRun({
    synthesis: { numDocs: 0 },
    plan: [{ name: 'only', rounds: 1, tokens: 4 * globalBatchTokens, order: 'random', mixture: { languages: { zh: 0.4, en: 0.6 } } }],
    training: { ...smallRun().training, warmupTokens: globalBatchTokens, decayTokens: globalBatchTokens },
    evaluation: { windowTokens: 128, maxTokensPerDoc: 128, benchmarks: [] },
    ...over,
  })

/** The same, parked at `ingest` as soon as its lines were read. */
export const strictRun = (over: CptRunInput = {}): CptRunInput => briefRun({ ...over, corpus: { ...smallRun().corpus, maxQuarantineRatio: 0 } })
