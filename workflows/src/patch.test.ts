import { expect, test } from 'vitest'
import { problemsOf } from '@cpt/contracts/parse-input'
import { z } from 'zod'
import { patchSchema } from './patch.ts'

const Train = z.strictObject({ seed: z.int(), dtype: z.string(), schedule: z.strictObject({ peakLr: z.number(), shape: z.string() }) })
const request = { seed: 1, dtype: 'float32', schedule: { peakLr: 1e-3, shape: 'cosine' } }
const fixed = ['seed', 'schedule.peakLr']
const refusal = (patch: unknown): string[] => {
  const { error } = patchSchema(Train, request, fixed).safeParse(patch)
  return error === undefined ? [] : problemsOf(error, patch).map((p) => p.path)
}

test('what a trial varies is refused at any depth, its neighbours are not', () => {
  expect(refusal({ schedule: { shape: 'constant' } })).toEqual([])
  expect(refusal({ dtype: 'bfloat16' })).toEqual([])
  expect(refusal({ schedule: { peakLr: 2e-3 } })).toEqual(['schedule.peakLr'])
  expect(refusal({ schedule: { peakLr: 1e-3 }, seed: 1 })).toEqual(['seed', 'schedule.peakLr'])
})

test('putting something else in the place of what holds it is refused as well', () => {
  expect(refusal({ schedule: null })).toContain('schedule.peakLr')
})
