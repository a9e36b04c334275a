/** A colour for a number; `low` and `high` are what the scale shows, beyond which all look the same. */
export interface Shades {
  of: (value: number) => string
  low: number
  high: number
  /** Whether there are numbers beyond `high`. */
  isCut: boolean
}

const mix = (share: number, of: string, into: string): string => `color-mix(in oklab, var(--${of}) ${(Math.max(0, Math.min(1, share)) * 100).toFixed(1)}%, var(--${into}))`

/** The lower, the stronger: of a loss the low end is of interest. */
export const lowIsStrong = (values: readonly number[]): Shades => {
  const { low, high, isCut } = extent(values)
  return { low, high, isCut, of: (v) => mix(high === low ? 1 : (high - v) / (high - low), 'heat', 'pale') }
}

/** Two colours that part at `bound`: what is allowed and what is not, the stronger the farther away. */
export const parted = (values: readonly number[], bound: number): Shades => {
  const { low, high, isCut } = extent([...values, bound])
  const reach = Math.max(high - bound, bound - low) || 1
  // even the nearest ones are to be told from the bound
  const strength = (distance: number): number => 0.18 + (0.82 * distance) / reach
  return { low, high, isCut, of: (v) => (v <= bound ? mix(strength(bound - v), 'heat', 'pale') : mix(strength(v - bound), 'lost', 'pale')) }
}

/** The i-th of n ordered things. */
export const ramp = (i: number, n: number): string => {
  const at = n <= 1 ? 1 : i / (n - 1)
  return at <= 0.5 ? mix(2 * at, 'ramp-mid', 'ramp-low') : mix(2 * at - 1, 'ramp-high', 'ramp-mid')
}

/** Least and largest of the numbers; one training that diverged does not make all others look alike (fences of Tukey, 3 × IQR). */
export const extent = (values: readonly number[]): { low: number; high: number; isCut: boolean } => {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b)
  const [low = 0, most = 0] = [sorted[0], sorted.at(-1)]
  const quantile = (q: number): number => sorted[Math.round(q * (sorted.length - 1))] ?? 0
  const fence = quantile(0.75) + 3 * (quantile(0.75) - quantile(0.25))
  const high = sorted.length < 4 ? most : sorted.findLast((v) => v <= fence) ?? most
  return { low, high, isCut: high < most }
}
