import type { TrialPoint } from '@cpt/contracts/sweep'

export interface Grid {
  almr: readonly number[]
  peakLrs: readonly number[]
  seeds: readonly number[]
}

/**
 * The trials of a grid by index: ALMR, then learning rate, then seed, each from the smallest. ALMR 0, training on the
 * retained languages alone, is the control of every learning rate and always among them.
 */
export const trialsOf = ({ almr, peakLrs, seeds }: Grid): TrialPoint[] =>
  ascending([0, ...almr]).flatMap((a) => ascending(peakLrs).flatMap((peakLr) => ascending(seeds).map((seed) => ({ almr: a, peakLr, seed }))))

/**
 * The order in which trials begin: the first seed of every cell before the second of any, so that a sweep whose budget
 * ends early has seen the whole grid.
 */
export const startOrder = (grid: Grid): number[] => {
  const numSeeds = ascending(grid.seeds).length
  return trialsOf(grid).map((_, index) => index).sort((a, b) => (a % numSeeds) - (b % numSeeds) || a - b)
}

const ascending = (values: readonly number[]): number[] => [...new Set(values)].sort((a, b) => a - b)
