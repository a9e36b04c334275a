import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { judgeGate, type Harm } from './gate.ts'

const harm = (value: number, standardError: number, bound = 0.5): Harm => ({ name: 'mmlu', value, standardError, bound, unit: 'of the items' })
const verdictOf = (h: Harm, z = 2) => judgeGate([h], { z }).verdict

describe('one check at two standard errors, allowed 0.5', () => {
  test.each([
    ['surely less', harm(0, 0.125), 'pass'],
    ['exactly within: 0.25 + 2 · 0.125 = 0.5', harm(0.25, 0.125), 'pass'],
    ['a little too uncertain to pass', harm(0.2501, 0.125), 'undecided'],
    ['exactly at the bound and not beyond: 0.75 − 2 · 0.125 = 0.5', harm(0.75, 0.125), 'undecided'],
    ['shown to exceed it', harm(0.7501, 0.125), 'fail'],
    ['a gain', harm(-3, 0.125), 'pass'],
    ['no error and on the bound', harm(0.5, 0), 'pass'],
    ['not measured', harm(NaN, 0.125), 'undecided'],
    ['without an error estimate', harm(0, NaN), 'undecided'],
  ] as const)('%s: %s', (_, h, expected) => {
    expect(verdictOf(h)).toBe(expected)
  })
})

test('the model of the paper, which lost 1.4 points of MMLU, passes a margin of 3 points and fails none', () => {
  const loss = { name: 'mmlu', value: 0.0141, standardError: 0.004, bound: 0.03, unit: 'of the items' }
  expect(judgeGate([loss], { z: 1.64 }).verdict).toBe('pass')
  expect(judgeGate([{ ...loss, bound: 0 }], { z: 1.64 }).verdict).toBe('fail')
})

test('one HumanEval reading eight points lower is no proof of harm: its standard error is 3.8 points', () => {
  expect(judgeGate([harm(0.085, 0.038 * Math.SQRT2, 0.03)], { z: 1.64 }).verdict).toBe('undecided')
})

test('one failed check fails the gate, one undecided leaves it undecided, all passed pass it', () => {
  const [pass, undecided, fail] = [harm(0, 0), harm(0.5, 0.1), harm(1, 0.1)]
  expect(judgeGate([pass, undecided, fail], { z: 2 }).verdict).toBe('fail')
  expect(judgeGate([pass, undecided], { z: 2 }).verdict).toBe('undecided')
  expect(judgeGate([pass, pass], { z: 2 }).verdict).toBe('pass')
})

test('a greater harm never gets a better verdict', () => {
  const worth = { pass: 0, undecided: 1, fail: 2 }
  const finite = fc.double({ min: -10, max: 10, noNaN: true })
  fc.assert(
    fc.property(finite, fc.double({ min: 0, max: 10, noNaN: true }), fc.double({ min: 0, max: 5, noNaN: true }), finite, fc.double({ min: 0, max: 4, noNaN: true }), (value, more, standardError, bound, z) => {
      expect(worth[verdictOf(harm(value + more, standardError, bound), z)]).toBeGreaterThanOrEqual(worth[verdictOf(harm(value, standardError, bound), z)])
    }),
  )
})

test('what nobody measured is undecided, however good the rest', () => {
  const { verdict, checks } = judgeGate([harm(-3, 0.125)], { z: 2 }, ['retention'])
  expect(verdict).toBe('undecided')
  expect(checks.find((c) => c.name === 'retention')).toMatchObject({ verdict: 'undecided', note: expect.stringContaining('not measured') as string })
})
