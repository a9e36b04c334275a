import type { LiveProgress, Parked, StageLine } from '@cpt/contracts/cpt-run'
import { expect, test } from 'vitest'
import { duration, liveWords, parkedWords, quantity, stageWords } from './words.ts'

const live: LiveProgress = { key: 'round-1/train', phase: 'training', done: 120, total: 400, step: 120, tokens: 61_440, loss: 4.2134, tokensPerSecond: 9812, etaSeconds: 42, attempts: 1 }
const line: StageLine = { key: 'tokenize', stage: 'tokenize', state: 'done', fingerprint: '', startedAtMs: 0, seconds: 8.44, jobSeconds: 8, attempts: 1, note: '' }

test('times and amounts are short', () => {
  expect([0.04, 59.94, 187, 7387].map(duration)).toEqual(['0.0 s', '59.9 s', '3:07', '2:03:07'])
  expect([950, 12_345, 4_560_000, 2e9].map(quantity)).toEqual(['950', '12.3k', '4.56M', '2.00G'])
})

test('a running stage tells step, share, loss, speed and time to go', () => {
  expect(liveWords(live)).toBe('round-1/train  training  step 120  30%  loss 4.213  9.81k tokens/s  ETA 42.0 s')
  expect(liveWords({ ...live, attempts: 2, loss: null, step: null, total: 0 })).toBe('round-1/train  training  9.81k tokens/s  ETA 42.0 s  attempt 2')
})

test('an ended stage tells its time, or that it was reused', () => {
  expect(stageWords(line)).toBe(`✓ ${'tokenize'.padEnd(32)}    8.4 s`)
  expect(stageWords({ ...line, state: 'reused', note: '12 shards' })).toBe(`↺ ${'tokenize'.padEnd(32)}   reused   12 shards`)
})

test('a parked stage names the exact command, safe to paste, for each allowed action', () => {
  const parked: Parked = { stage: "it's $(odd)", park: 2, type: 'LossNotFinite', message: 'loss is NaN\u001b[2J', cause: 'c', suggest: 's', actions: ['retry', 'abort'], logTail: ['step 5'], sinceMs: 0 }
  const text = parkedWords(parked, 'my-run', 'http://127.0.0.1:8233/x')
  expect(text).toContain(`npx cpt resolve my-run --stage 'it'\\''s $(odd)' --park 2 --action retry`)
  expect(text).toContain('--action abort')
  expect(text).not.toContain('--action skip')
  expect(text).not.toContain('\u001b')
})
