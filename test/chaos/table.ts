import { readFile, writeFile } from 'node:fs/promises'

/** One line of the table of docs/benchmarks.md; `bound` quotes what a zero in so many trials says (95 %). */
export interface Row {
  section: string
  measure: string
  ours: number
  peer: number | null
  peerName: string | null
  unit: string
  ratio: number | null
  goal: string
  holds: boolean
  bound: string | null
  seed: number
  count: number
  seconds: number
  date: string
}

const file = new URL('../bench/results/chaos.json', import.meta.url)

/** The rule of three: what no event in `trials` says about its probability. */
export const boundOfZero = (trials: number): string => `0 of ${trials}: < ${(3 / trials).toFixed(4)} (95 %)`

export const quantile = (values: readonly number[], q: number): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)] ?? Number.NaN
}

let merging: Promise<void> = Promise.resolve()

/** Puts the rows into the table on disk, one caller after the other; those of the same measure are replaced, all others stay. */
export const mergeRows = (rows: readonly Row[]): Promise<void> => (merging = merging.then(() => merge(rows)))

const merge = async (rows: readonly Row[]): Promise<void> => {
  const before = JSON.parse(await readFile(file, 'utf8').catch(() => '[]')) as Row[]
  const fresh = new Set(rows.map((r) => r.measure))
  const merged = [...before.filter((r) => !fresh.has(r.measure)), ...rows].sort((a, b) => a.section.localeCompare(b.section) || a.measure.localeCompare(b.measure))
  await writeFile(file, `${JSON.stringify(merged, null, 2)}\n`)
}
