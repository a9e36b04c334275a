import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Ledger } from '@cpt/contracts/sweep'
import { balance, debit, estimate, heldBy, openLedger, reserve, settle, spentBy } from './ledger.ts'

const reserved = (ledger: Ledger, trial: number, amount: number): Ledger => {
  const after = reserve(ledger, trial, amount)
  if (after === null) throw new Error(`no budget for trial ${trial}`)
  return after
}

test('a trial begins only where the budget still holds what it may take', () => {
  const two = reserved(reserved(openLedger(100), 0, 40), 1, 40)
  expect(reserve(two, 2, 21)).toBeNull()
  expect(heldBy(reserved(two, 2, 20))).toBe(100)
})

test('what a trial takes comes off its reservation, and what it did not take is free again at its end', () => {
  const running = debit(reserved(openLedger(100), 0, 40), 0, 15)
  expect([spentBy(running), heldBy(running)]).toEqual([15, 25])
  const over = settle(running, 0, 30)
  expect([spentBy(over), heldBy(over)]).toEqual([30, 0])
  expect(balance(over)).toBe('30 of 100 GPU-seconds spent, 0 reserved')
})

test('a trial that takes more than was reserved is debited in full', () => {
  const over = settle(reserved(openLedger(100), 0, 40), 0, 90)
  expect(spentBy(over)).toBe(90)
  expect(reserve(over, 1, 11)).toBeNull()
})

test('the next trial is expected to take what the dearest has taken; one whose work was there already tells nothing', () => {
  expect(estimate(openLedger(null), 7)).toBe(7)
  const one = settle(openLedger(null), 0, 0)
  expect(estimate(one, 7)).toBe(7)
  expect(estimate(settle(settle(one, 1, 12), 2, 9), 7)).toBe(12)
})

test('without a limit every trial begins', () => {
  expect(reserve(openLedger(null), 0, 1e12)).not.toBeNull()
  expect(balance(openLedger(null))).toBe('0 GPU-seconds spent, 0 reserved, no limit')
})

type Step = ['reserve' | 'debit' | 'settle', trial: number, amount: number]
const steps = fc.array(fc.tuple(fc.constantFrom<Step[0]>('reserve', 'debit', 'settle'), fc.nat(5), fc.nat(50)), { maxLength: 60 })
const play = (ledger: Ledger, all: readonly Step[]): Ledger => all.reduce((l, [what, trial, amount]) => (what === 'reserve' ? (reserve(l, trial, amount) ?? l) : what === 'debit' ? debit(l, trial, amount) : settle(l, trial, amount)), ledger)

test('whatever happens, nothing is reserved beyond the budget, and a message that comes twice changes nothing', () => {
  fc.assert(fc.property(steps, fc.nat(200), (all, budget) => {
    let ledger = openLedger(budget)
    for (const step of all) {
      const [what, trial, amount] = step
      const after = play(ledger, [step])
      if (what === 'reserve' && after !== ledger) expect(spentBy(after) + heldBy(after)).toBeLessThanOrEqual(Math.max(budget, spentBy(ledger) + heldBy(ledger)))
      if (what !== 'reserve') expect(play(after, [[what, trial, amount]])).toEqual(after)
      expect(Object.values(after.reserved).every((r) => r >= 0)).toBe(true)
      expect(spentBy(after)).toBeGreaterThanOrEqual(spentBy(ledger))
      ledger = after
    }
  }))
})

test('when all are settled nothing is held', () => {
  fc.assert(fc.property(steps, (all) => {
    const ledger = play(play(openLedger(null), all), [0, 1, 2, 3, 4, 5].map((trial): Step => ['settle', trial, 1]))
    expect(heldBy(ledger)).toBe(0)
  }))
})
