import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { explainGate, judgeGate, type Harm } from './gate.ts'

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

describe('what a person is told of a gate that does not pass', () => {
  const settings = { z: 2 }
  const retention = (value: number, standardError = 0.005): Harm => ({ name: 'retention', value, standardError, bound: 0.05, unit: 'nats/token' })
  const gain = (gained: number, standardError = 0.005): Harm => ({ name: 'gain in zh', value: -gained, standardError, bound: -0.1, unit: 'nats/token' })
  const told = (harms: Harm[], unmeasured: string[] = []) => explainGate(judgeGate(harms, settings, unmeasured).checks, harms, 'zh', settings)

  test('old abilities are named where they were lost, with how much too much, and not the gain that is there', () => {
    const { found, cause, suggest } = told([retention(0.12), gain(0.4)])
    expect(found).toBe('retention: worse by 0.120 ± 0.010 nats/token, allowed is 0.050 (fail)')
    expect(cause).toBe('The model lost more of its old abilities than the gate allows, on retained text: 0.070 nats/token too much.')
    expect(suggest).toMatch(/smaller share of zh.*lower training\.peakLr/)
  })

  test('a gain that is missing is named as that, and nothing is said of old abilities', () => {
    const { found, cause, suggest } = told([retention(0.01), gain(0.02)])
    expect(found).toBe('gain in zh is 0.020 ± 0.010 nats/token, asked for is 0.100 (fail)')
    expect(cause).toBe('The model learned too little zh: 0.080 nats/token less than asked for.')
    expect(suggest).toMatch(/more tokens or a larger share of zh.*higher training\.peakLr/)
    expect(`${cause} ${suggest}`).not.toMatch(/lost|abilities|smaller share/)
  })

  test('where both fail both are told, each with what to change', () => {
    const { found, cause, suggest } = told([retention(0.12), gain(-0.3)])
    expect(found).toMatch(/retention: worse by 0\.120.*; gain in zh is -0\.300/)
    expect(cause).toMatch(/old abilities.*learned too little zh: 0\.400 nats\/token less/)
    expect(suggest).toMatch(/smaller share of zh.*; .*larger share of zh/)
  })

  test('a benchmark is named with its own unit', () => {
    expect(told([{ ...harm(0.3, 0.01, 0.1), name: 'gsm8k' }]).cause).toBe('The model lost more of its old abilities than the gate allows, in gsm8k: 0.200 of the items too much.')
  })

  test('what is undecided asks for evidence, of the sort that is missing', () => {
    const text = told([retention(0.05), gain(0.4)])
    expect(text.cause).toBe('Too little evidence: retention may lie on either side of its bound.')
    expect(text.suggest).toContain('corpus.holdOut.targetSeNats')
    expect(told([{ ...harm(0.5, 0.1), name: 'gsm8k' }]).suggest).toContain('more items of gsm8k')
    expect(told([gain(0.4)], ['retention'])).toMatchObject({ found: expect.stringContaining('retention was not measured') as string, suggest: expect.stringContaining('use: validate') as string })
    expect(told([retention(0)], ['gain in zh']).suggest).toContain('more text in zh')
  })
})
