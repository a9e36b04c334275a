import type { Ledger } from '@cpt/contracts/sweep'

export const openLedger = (budget: number | null): Ledger => ({ budget, reserved: {}, spent: {}, settled: [] })

const sum = (amounts: Readonly<Record<string, number>>): number => Object.values(amounts).reduce((a, b) => a + b, 0)

export const spentBy = (ledger: Ledger): number => sum(ledger.spent)
export const heldBy = (ledger: Ledger): number => sum(ledger.reserved)

/** What the next trial may take: as much as the dearest one that really ran, before that what its author expects. */
export const estimate = (ledger: Ledger, expected: number): number => {
  const costs = ledger.settled.map((trial) => ledger.spent[trial] ?? 0).filter((cost) => cost > 0)
  return costs.length === 0 ? expected : Math.max(...costs)
}

/** Holds `amount` for a trial that is about to begin; null, and nothing changes, where the budget does not allow it. */
export const reserve = (ledger: Ledger, trial: number, amount: number): Ledger | null => {
  if (ledger.budget !== null && spentBy(ledger) + heldBy(ledger) + amount > ledger.budget) return null
  return { ...ledger, reserved: { ...ledger.reserved, [trial]: amount } }
}

/** Puts down what a trial's jobs took so far, all in all: said twice it counts once, and never less than before. */
export const debit = (ledger: Ledger, trial: number, total: number): Ledger => {
  const before = ledger.spent[trial] ?? 0
  const spent = Math.max(before, total)
  const left = Math.max(0, (ledger.reserved[trial] ?? 0) - (spent - before))
  return { ...ledger, spent: { ...ledger.spent, [trial]: spent }, reserved: trial in ledger.reserved ? { ...ledger.reserved, [trial]: left } : ledger.reserved }
}

/** Closes the account of a trial: `total` is what it took, what was held beyond that is free again. */
export const settle = (ledger: Ledger, trial: number, total: number): Ledger => {
  const debited = debit(ledger, trial, total)
  const { [String(trial)]: _freed, ...reserved } = debited.reserved
  return { ...debited, reserved, settled: debited.settled.includes(trial) ? debited.settled : [...debited.settled, trial] }
}

/** The ledger in one line, for the page. */
export const balance = (ledger: Ledger): string => {
  const [spent, held] = [Math.round(spentBy(ledger)), Math.round(heldBy(ledger))]
  return ledger.budget === null ? `${spent} GPU-seconds spent, ${held} reserved, no limit` : `${spent} of ${ledger.budget} GPU-seconds spent, ${held} reserved`
}
