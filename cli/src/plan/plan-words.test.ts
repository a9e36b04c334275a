import type { TrainingPlan } from '@cpt/activities/plan-training'
import { expect, test } from 'vitest'
import { planWords, size, span } from './plan-words.ts'

const plan: TrainingPlan = {
  parameters: 725_664, vocabulary: 2048, steps: 128, tokens: 1_048_576, globalBatchTokens: 8192, sequences: 32, ranks: 4, shard: 2, replicas: 2,
  microBatchSequences: 3, microBatchesPerRank: 3, sequencesPerRank: [8, 8], checkpointEvery: 3,
  memory: { phase: 'backward', parts: { parameters: 2_900_000, activations: 1_250_000_000 }, phases: { backward: 1_252_900_000 }, tensors: 1_252_900_000, reserve: 500_000_000, total: 1_752_900_000 },
  deviceBytes: null, fits: null, advice: [], flopsPerToken: 5_000_000, formula: '6N', peakFlops: null, assumedMfu: 0.4, tokensPerSecond: null, hours: null, evaluations: 12, evaluationHours: null,
}
const spec = { name: 'mine', base: { model: 'samples:base/\u001b[31m', license: '' }, training: { dtype: 'float32', sequenceTokens: 256 } } as Parameters<typeof planWords>[0]

test('copies, micro-batches and what is computed again are told', () => {
  const words = planWords(spec, 'cpu', plan)
  expect(words).toContain('4 processes, 2 copies of the model over 2 each on cpu: 8 sequences a rank and step, as 3 micro-batches of 3')
  expect(words).toContain('one layer of 3 is computed again')
  expect(words).toContain('fits? unknown')
  expect(words).not.toContain('\u001b')
})

test('a plan that does not fit lists what to change', () => {
  const words = planWords(spec, 'h100', { ...plan, deviceBytes: 1e9, fits: false, advice: ['placement.train.batchTokens 256: micro-batches of 1'] })
  expect(words).toContain('does not fit: 1.75 GB of 1.00 GB. This makes it fit:\n    placement.train.batchTokens 256')
})

test('evaluations are counted where their size is known, and told where it is not', () => {
  const timed = { ...plan, peakFlops: 989e12, tokensPerSecond: 1000, hours: 10 }
  expect(planWords(spec, 'h100', { ...timed, evaluationHours: 0.5 })).toContain('of it 12 evaluations: 30 min')
  expect(planWords(spec, 'h100', { ...timed, evaluationHours: 0 })).toContain('without 12 evaluations (--evaluation-tokens <n> counts them)')
})

test('sizes and times are short', () => {
  expect([size(999), size(2.5e6), size(80e9)]).toEqual(['1.0 kB', '2.5 MB', '80.00 GB'])
  expect([span(0.01), span(3.21), span(509)]).toEqual(['1 min', '3.2 hours', '21.2 days'])
})
