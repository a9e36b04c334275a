/**
 * `npm run judge:dirt`: the dirty lines of the sample among its clean documents, run through the real stages. Prints what is
 * found by kind, and writes the table of docs/benchmarks.md. ml/tests/test_dirt.py holds the floors.
 */
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { z } from 'zod'

const Line = z.object({ dirt: z.string(), lines: z.int(), found: z.int(), by: z.record(z.string(), z.int()), missed: z.array(z.string()), recall: z.number() })
const home = new URL('../../', import.meta.url).pathname
const page = join(home, 'docs/benchmarks.md')
const between = /(<!-- dirt table -->\n)[^]*?(<!-- end -->)/

const { stdout } = await promisify(execFile)(join(home, 'ml/.venv/bin/python'), ['tests/dirt.py'], { cwd: join(home, 'ml'), maxBuffer: 1 << 26 })
const found = stdout.trim().split('\n').map((line) => Line.parse(JSON.parse(line)))
const clean = (dirt: string): boolean => dirt === 'clean documents'
const rows = found.map((f) => `| ${[
  f.dirt.replaceAll('_', ' '), f.lines, f.found, clean(f.dirt) ? `${(100 * f.recall).toFixed(2)} % dropped` : f.recall.toFixed(2),
  Object.entries(f.by).map(([by, n]) => `${by} ${n}`).join('; '), f.missed.join('; '),
].join(' | ')} |`)
const table = ['| dirt | lines | found | recall | by | not found |', '|---|---:|---:|---:|---|---|', ...rows].join('\n')
process.stdout.write(`${table}\n`)
const text = await readFile(page, 'utf8')
if (!between.test(text)) throw new Error('docs/benchmarks.md has no place for the table: expected <!-- dirt table --> and <!-- end -->')
await writeFile(page, text.replace(between, (_all, from: string, to: string) => `${from}${table}\n${to}`))
