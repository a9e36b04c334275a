import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ApplicationFailure } from '@temporalio/common'
import { expect, test } from 'vitest'
import type { AlmrLrSweepInput } from '@cpt/contracts/almr-lr-sweep'
import type { Problem } from '@cpt/contracts/parse-input'
import { localDiskStore } from './artifact-store/local-disk.ts'
import { loadConfig } from './config.ts'
import { resolveSweep } from './resolve-sweep.ts'

const samples = fileURLToPath(new URL('../../samples', import.meta.url))
const roots = { samples, store: join(samples, 'nothing-is-stored') }
const resolve = (input: AlmrLrSweepInput) => resolveSweep({ config: { ...loadConfig({}), roots }, store: localDiskStore(roots) })(input)
const problemsOf = async (input: AlmrLrSweepInput): Promise<string[]> => {
  const refusal = await resolve(input).then(() => null, (e: unknown) => e)
  if (!(refusal instanceof ApplicationFailure)) throw new Error(`not refused: ${String(refusal)}`)
  expect(refusal.type).toBe('InvalidInput')
  return ((refusal.details ?? []) as Problem[]).map((p) => p.path)
}

test('with no input the preset is swept, over the quickstart’s run', async () => {
  const { sweep, run } = await resolve({})
  expect(sweep).toMatchObject({ name: 'almr-lr', grid: { seeds: [1, 2] }, parallel: 2, parkedTrials: 'wait' })
  expect(run.spec).toMatchObject({ targetLanguage: 'zh', evaluation: { benchmarks: [] }, plan: [{ name: 'trial', tokens: sweep.tokensPerTrial }] })
  expect(run.sources.map((s) => s.name)).toContain('zh')
})

test('what is given changes the sweep or the run, and nothing else', async () => {
  const [plain, given] = [await resolve({}), await resolve({ grid: { almr: [0.3] }, parallel: 4, run: { training: { optimizer: { beta2: 0.99 } } } })]
  expect(given.sweep).toEqual({ ...plain.sweep, grid: { ...plain.sweep.grid, almr: [0.3] }, parallel: 4 })
  expect(given.run.spec.training).toEqual({ ...plain.run.spec.training, optimizer: { ...plain.run.spec.training.optimizer, beta2: 0.99 } })
})

test('trials are guarded as any training, unless the sweep says otherwise', async () => {
  expect((await resolve({})).run.spec.training.guard).toMatchObject({ windowSteps: 32, maxAmendments: 3 })
  expect((await resolve({ run: { training: { guard: null } } })).run.spec.training.guard).toBeNull()
})

test.each<[string, AlmrLrSweepInput, string[]]>([
  ['a grid without a value', { grid: { almr: [] } }, ['grid.almr']],
  ['trials too short for a batch', { tokensPerTrial: 100 }, ['tokensPerTrial']],
  ['trials too short for their warm-up and decay', { tokensPerTrial: 32768 }, ['run.training.decayTokens']],
  ['a share of the added language beside its ALMR', { retained: { zh: 0.5, en: 0.5 } }, ['retained']],
  ['shares that sum to less than one', { retained: { en: 0.5 } }, ['retained']],
  ['a file that is not there', { run: { corpus: { sources: [{ name: 'x', path: 'samples:corpus/x.jsonl' }] } } }, ['run.corpus.sources.0.path']],
  ['another tokenizer for the base', { run: { base: { tokenizer: 'samples:target/tokenizer.json' } } }, ['run.base.tokenizer']],
  ['a tokenizer that is not there', { run: { base: { tokenizer: 'samples:nowhere.json' } } }, ['run.base.tokenizer']],
  ['a method for a tokenizer that is not given', { run: { base: { vocabularyMethod: 'mean' } } }, ['run.base.vocabularyMethod']],
  ['synthetic text that nobody makes', { retained: { en: 0.5, synthetic: 0.5 } }, ['run.synthesis.numDocs']],
])('%s is refused by path', async (_, input, paths) => {
  expect(await problemsOf(input)).toEqual(paths)
})
