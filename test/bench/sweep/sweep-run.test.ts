import { describe, expect, test } from 'vitest'
import { compare, idleShare, profile, type Span, type SweepRun } from './sweep-run.ts'

const job = (index: number, fromMs: number, toMs: number, stage = 'train'): Span => ({ index, stage, fromMs, toMs })
const stratum = (nllPerToken: number) => ({ set: 'corpus' as const, language: 'zh', kind: 'web' as const, topic: null, docs: 1, tokens: 10, bytes: 30, nllPerToken, nllPerByte: nllPerToken / 3 })
const sweep = (spans: Span[], endedMs: number, nll = 3): SweepRun => ({
  driver: 'x', beganMs: 0, endedMs, spans,
  trials: new Map([...new Set(spans.map((s) => s.index))].map((index) => [index, { weightsSha256: `bits-${nll}`, strata: [stratum(nll)] }])),
})

describe('the share of the lanes without a job', () => {
  test('is nothing where every lane computes all the time', () => {
    expect(idleShare(sweep([job(0, 0, 100), job(1, 0, 100)], 100), 2)).toBe(0)
  })
  test('counts the time before the first and between two jobs on every lane', () => {
    // 2 lanes of 100 ms; lane 1 waits 10 at the start, lane 2 waits 20 between two jobs
    expect(idleShare(sweep([job(0, 10, 100), job(1, 0, 40), job(1, 60, 100)], 100), 2)).toBeCloseTo(30 / 200, 12)
  })
  test('asks for no more lanes than trials are left, and for one until the verdict', () => {
    // trial 0 ends at 50: one lane from there, idle from 100 to 120
    const run = sweep([job(0, 0, 50), job(1, 0, 100)], 120)
    expect(idleShare(run, 2)).toBeCloseTo(20 / 170, 12)
    expect(profile(run, 2)).toEqual({ train: 0.15, 'before the first job': 0, 'between jobs': 0, 'after the last job': 0.02 })
  })
})

test('the profile of the lanes adds up to their time', () => {
  const run = sweep([job(0, 1000, 3000, 'sample-mixture'), job(0, 4000, 9000), job(1, 2000, 8500), job(2, 9500, 12000)], 13000)
  const parts = profile(run, 2)
  const busy = (parts['sample-mixture'] ?? 0) + (parts['train'] ?? 0)
  const all = Object.values(parts).reduce((a, b) => a + b, 0)
  expect(1 - busy / all).toBeCloseTo(idleShare(run, 2), 12)
})

test('sweeps are compared trial by trial, and a missing trial is an error', () => {
  const [ours, theirs] = [sweep([job(0, 0, 1), job(1, 0, 1)], 1), sweep([job(0, 0, 9), job(1, 0, 9)], 9, 3.5)]
  expect(compare(ours, ours)).toEqual({ largest: 0, otherBits: 0 })
  expect(compare(ours, theirs)).toEqual({ largest: 0.5, otherBits: 2 })
  expect(() => compare(ours, sweep([job(0, 0, 1)], 1))).toThrow('x: trial 1 has no losses to compare')
})
