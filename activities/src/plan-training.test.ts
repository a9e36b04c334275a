import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CptRunInput, plannedTokens } from '@cpt/contracts/cpt-run'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { loadConfig } from './config.ts'
import { completeInput, devices, planTraining, Unplannable, usualDevice } from './plan-training.ts'

const config = loadConfig({})
const example = async (name: string): Promise<CptRunInput> => CptRunInput.parse(parse(await readFile(join(config.home, 'samples', `${name}.yaml`), 'utf8')))
const quickly = { timeout: 120_000 }

test.each(['llama-3-8b', 'llama-3-70b'])('%s is the quickstart with another configuration of base, amounts and placement', async (name) => {
  const [small, large] = [await completeInput(config, {}), await completeInput(config, await example(name))]
  const differing = (Object.keys(large) as (keyof typeof large)[]).filter((key) => JSON.stringify(large[key]) !== JSON.stringify(small[key]))
  expect(differing.sort()).toEqual(['base', 'description', 'evaluation', 'name', 'placement', 'plan', 'training'])
  expect({ ...large.placement, train: null }).toEqual({ ...small.placement, train: null })
  expect(usualDevice(large)).toBe('h100')
  expect(usualDevice(small)).toBe('cpu')
})

test.each([['llama-3-8b', 8], ['llama-3-70b', 64]])('%s fits %i devices of 80 GB', quickly, async (name, ranks) => {
  const spec = await completeInput(config, await example(name))
  const plan = await planTraining(config, spec, { device: devices.h100, mfu: 0.4, peakTflops: null, evaluationTokens: null })
  expect(plan).toMatchObject({ ranks, fits: true, tokens: plannedTokens(spec), sequences: 512 })
  expect(plan.steps * plan.globalBatchTokens).toBe(plan.tokens)
  expect(plan.microBatchesPerRank * plan.microBatchSequences * ranks).toBe(512)
})

test('a corpus named by its alias is not looked for', async () => {
  const spec = await completeInput(config, { corpus: { newest: 'nobody-has-made-it' } })
  expect(plannedTokens(spec)).toBe(1_048_576)
})

test('more processes than GPUs are refused by path', async () => {
  const spec = await completeInput(config, { placement: { train: { gpusPerNode: 4, processesPerNode: 8 } } })
  const refused = await planTraining(config, spec, { device: devices.h100, mfu: 0.4, peakTflops: null, evaluationTokens: null }).catch((e: unknown) => e)
  expect(refused).toBeInstanceOf(Unplannable)
  expect((refused as Unplannable).problems).toMatchObject([{ path: 'placement.train.processesPerNode', got: '8' }])
})

test('a peak that the placement states counts, unless the asker states another', quickly, async () => {
  const spec = await completeInput(config, { placement: { train: { peakTflops: 0.25 } } })
  const peakOf = async (peakTflops: number | null) => (await planTraining(config, spec, { device: devices.cpu, mfu: 0.4, peakTflops, evaluationTokens: null })).peakFlops
  expect(await peakOf(null)).toBe(0.25e12)
  expect(await peakOf(0.5)).toBe(0.5e12)
})

test('documents that are hidden from each other cost a part of their own', quickly, async () => {
  const partsOf = async (documentMasking: boolean) => (await planTraining(config, await completeInput(config, { training: { documentMasking } }), { device: devices.cpu, mfu: 0.4, peakTflops: null, evaluationTokens: null })).memory.parts
  expect((await partsOf(true))['document masks']).toBeGreaterThan(0)
  expect(await partsOf(false)).not.toHaveProperty('document masks')
})

test('the memory of a CPU process is its share of memoryMiB', quickly, async () => {
  const spec = await completeInput(config, { placement: { train: { processesPerNode: 2, memoryMiB: 1024 } } })
  const plan = await planTraining(config, spec, { device: devices.cpu, mfu: 0.4, peakTflops: 0.1, evaluationTokens: null })
  expect(plan).toMatchObject({ ranks: 2, deviceBytes: 512 * 2 ** 20, fits: false, peakFlops: 1e11 })
  expect(plan.hours).toBeGreaterThan(0)
})

test('evaluations cost a third of training as many tokens, each time that the validation sets are scored', quickly, async () => {
  const spec = await completeInput(config, { training: { validateEverySteps: 8, globalBatchTokens: 4096 }, plan: [{ name: 'only', rounds: 2, tokens: 2 * 40 * 4096, order: 'random', mixture: { languages: { zh: 0.5, en: 0.5 } } }] })
  const planned = (evaluationTokens: number | null) => planTraining(config, spec, { device: devices.cpu, mfu: 0.4, peakTflops: 0.1, evaluationTokens })
  const [without, counted] = [await planned(null), await planned(30_000)]
  expect(without).toMatchObject({ evaluations: 2 * 5, evaluationHours: 0 })
  expect(counted.evaluationHours).toBeCloseTo((10 * 10_000) / counted.tokensPerSecond! / 3600, 12)
  expect(counted.hours).toBeCloseTo(without.hours! + counted.evaluationHours!, 12)
})

test('a tokenizer that takes the place of the base’s is planned with its rows', quickly, async () => {
  const planned = async (base: NonNullable<CptRunInput['base']>) => await planTraining(config, await completeInput(config, { base }), { device: devices.cpu, mfu: 0.4, peakTflops: null, evaluationTokens: null })
  const plain = await planned({})
  const padded = await planned({ tokenizer: 'samples:base/tokenizer.json', vocabularyMultipleOf: 3000 })
  expect(padded.vocabulary).toBe(Math.ceil(plain.vocabulary / 3000) * 3000)
  expect(padded.vocabulary).toBeGreaterThan(plain.vocabulary)
  const { hidden_size: width, tie_word_embeddings: isTied } = JSON.parse(await readFile(join(config.home, 'samples/base/config.json'), 'utf8')) as { hidden_size: number; tie_word_embeddings: boolean }
  expect(padded.parameters - plain.parameters).toBe((padded.vocabulary - plain.vocabulary) * width * (isTied ? 1 : 2))
  expect(padded.memory.total).toBeGreaterThan(plain.memory.total)
  const refused = await planned({ tokenizer: 'samples:nowhere.json' }).catch((e: unknown) => e)
  expect((refused as Unplannable).problems).toMatchObject([{ path: 'base.tokenizer' }])
})
