import { readFile, writeFile } from 'node:fs/promises'
import type { BenchRow } from '../bench/row.ts'

/** One line of the table of docs/benchmarks.md; `bound` quotes what a zero in so many trials says (95 %). */
export interface Row extends BenchRow {
  section: string
  bound: string | null
  seed: number
  count: number
  /** null where the session ended before it wrote its table. */
  seconds: number | null
  date: string
}

const file = new URL('../bench/results/chaos.json', import.meta.url)
const page = new URL('../../docs/benchmarks.md', import.meta.url)

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
  await writeFile(page, withTable(await readFile(page, 'utf8'), merged))
}

const between = /(<!-- chaos table -->\n)[^]*?(<!-- end -->)/

/** The page with the table of all rows between its marks. */
const withTable = (text: string, rows: readonly Row[]): string => {
  if (!between.test(text)) throw new Error('docs/benchmarks.md has no place for the table: expected <!-- chaos table --> and <!-- end -->')
  const lines = rows.map((r) => {
    const beside = [r.bound, r.peerName === null ? null : `${r.peerName}: ${r.peer ?? '?'}`].filter((t) => t !== null && t !== '').join('; ')
    const cells = [r.measure, `${r.ours} ${r.unit}`, r.goal, r.holds ? 'yes' : '**no**', beside, r.seed, r.seconds === null ? '' : `${r.seconds} s`]
    return `| ${cells.map((c) => String(c).replaceAll('|', '\\|')).join(' | ')} |`
  })
  const table = ['| measure | ours | goal | holds | beside it | seed | took |', '|---|---|---|---|---|---:|---:|', ...lines].join('\n')
  return text.replace(between, (_all, from: string, to: string) => `${from}${table}\n${to}`)
}
