import { expect, test } from 'vitest'
import { spread } from './end-labels.ts'
import { thin } from './losses.ts'
import * as n from './numbers.ts'
import { timing } from './timing.ts'

test('numbers carry a true minus, grouped digits and units', () => {
  expect(n.count(1_228_800)).toBe('1,228,800')
  expect(n.signed(-0.413)).toBe('−0.413')
  expect(n.signed(0.0211, 2)).toBe('+0.02')
  expect(n.rate(0.001)).toBe('1e-3')
  expect(n.rate(1.25e-5)).toBe('1.25e-5')
  expect(n.seconds(224)).toBe('3 min 44 s')
  expect(n.seconds(3599.7)).toBe('1 h 0 min')
  expect(n.bytes(9_800_000)).toBe('9.3 MiB')
  expect(n.percent(0.4827)).toBe('48.3 %')
})

test('a change that rounds to nothing has no sign', () => {
  expect(n.signed(-0.0001, 2)).toBe('0.00')
  expect(n.signed(0.0001, 2)).toBe('0.00')
})

test('numbers that are none are shown as a dash', () => {
  for (const f of [n.fixed, n.signed, n.percent, n.ppl, n.seconds]) expect(f(Number.NaN)).toBe('–')
  expect(n.utc(Number.NaN)).toBe('–')
})

test('labels keep their order, their distance and their bounds', () => {
  const ys = spread([100, 101, 99, 290, 295], 10, 300)
  const sorted = [...ys].sort((a, b) => a - b)
  expect(ys[2]).toBeLessThan(ys[0]!)
  expect(ys[0]).toBeLessThan(ys[1]!)
  sorted.slice(1).forEach((y, i) => expect(y - sorted[i]!).toBeGreaterThanOrEqual(15))
  expect(sorted.at(-1)).toBeLessThanOrEqual(300)
})

test('a long curve keeps its mean and its last token', () => {
  const points = Array.from({ length: 100_000 }, (_, i) => ({ step: i + 1, tokens: (i + 1) * 4096, loss: 5 - i / 50_000, lr: 1e-3 }))
  const few = thin(points)
  expect(few.length).toBeLessThanOrEqual(1600)
  expect(few.at(-1)?.tokens).toBe(100_000 * 4096)
  expect(few.reduce((a, p) => a + p.loss, 0) / few.length).toBeCloseTo(4, 2)
})

const line = (from: number, seconds: number, jobSeconds: number, state: 'done' | 'reused' = 'done') => ({ key: '', stage: '', state, fingerprint: '', startedAtMs: from * 1000, seconds, jobSeconds, attempts: 1, note: '' })

test('time without a job is what no line covers, overlaps counted once', () => {
  const t = timing({ startedAtMs: 0, lines: [line(0, 10, 8), line(10, 10, 10), line(12, 8, 8), line(30, 10, 10, 'reused')] })
  expect(t.totalSeconds).toBe(40)
  expect(t.busySeconds).toBe(18)
  expect(t.idleShare).toBeCloseTo(22 / 40)
})
