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
  const plan = await planTraining(config, spec, { device: devices.h100, mfu: 0.4, peakTflops: null })
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
  const refused = await planTraining(config, spec, { device: devices.h100, mfu: 0.4, peakTflops: null }).catch((e: unknown) => e)
  expect(refused).toBeInstanceOf(Unplannable)
  expect((refused as Unplannable).problems).toMatchObject([{ path: 'placement.train.processesPerNode', got: '8' }])
})

test('a peak that the placement states counts, unless the asker states another', quickly, async () => {
  const spec = await completeInput(config, { placement: { train: { peakTflops: 0.25 } } })
  const peakOf = async (peakTflops: number | null) => (await planTraining(config, spec, { device: devices.cpu, mfu: 0.4, peakTflops })).peakFlops
  expect(await peakOf(null)).toBe(0.25e12)
  expect(await peakOf(0.5)).toBe(0.5e12)
})

test('documents that are hidden from each other cost a part of their own', quickly, async () => {
  const partsOf = async (documentMasking: boolean) => (await planTraining(config, await completeInput(config, { training: { documentMasking } }), { device: devices.cpu, mfu: 0.4, peakTflops: null })).memory.parts
  expect((await partsOf(true))['document masks']).toBeGreaterThan(0)
  expect(await partsOf(false)).not.toHaveProperty('document masks')
})

test('the memory of a CPU process is its share of memoryMiB', quickly, async () => {
  const spec = await completeInput(config, { placement: { train: { processesPerNode: 2, memoryMiB: 1024 } } })
  const plan = await planTraining(config, spec, { device: devices.cpu, mfu: 0.4, peakTflops: 0.1 })
  expect(plan).toMatchObject({ ranks: 2, deviceBytes: 512 * 2 ** 20, fits: false, peakFlops: 1e11 })
  expect(plan.hours).toBeGreaterThan(0)
})
