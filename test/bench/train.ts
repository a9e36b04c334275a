/**
 * `npm run bench:train`: the trainer beside a bare PyTorch loop and Hugging Face's Trainer, the loader from a cold disk, and
 * what saves and resumes cost, on the processor. Prints and writes test/bench/results/train.json and the table of
 * docs/benchmarks.md, which says how it is measured, in some twelve minutes. `-- --only speed,loader,saves`: some parts, all other rows stay. `-- --seed S`.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { loadConfig } from '../../activities/src/config.ts'
import type { BenchRow } from './row.ts'

/** What test/bench/train/<part>.py prints, a line each. */
const Printed = z.strictObject({
  measure: z.string(), ours: z.number(), peer: z.number().nullable(), peerName: z.string().nullable(), unit: z.string(),
  ratio: z.number().nullable(), goal: z.string(), holds: z.boolean(), profile: z.string().nullable(),
})
interface TrainRow extends BenchRow {
  part: string
  profile: string | null
}

const home = new URL('../../', import.meta.url).pathname
const scripts = join(home, 'test/bench/train')
const oneCore = join(home, 'test/bench/data/common/one_core.py')
const results = join(home, 'test/bench/results/train.json')
const page = join(home, 'docs/benchmarks.md')
const between = /(<!-- train table -->\n)[^]*?(<!-- end -->)/
/** A save is written beside the training, so that part is not held to one core. */
const parts: Readonly<Record<string, { pinned: boolean }>> = { speed: { pinned: true }, loader: { pinned: true }, saves: { pinned: false } }

const say = (text: string): void => void process.stdout.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`)
const config = loadConfig({ CPT_HOME: home })
const oneThread = Object.fromEntries(['OMP', 'MKL', 'OPENBLAS', 'RAYON'].map((n) => [`${n}_NUM_THREADS`, '1']))
const { GLIBC_TUNABLES, ARROW_DEFAULT_MEMORY_POOL } = config.jobEnv
const environment = { ...process.env, GLIBC_TUNABLES, ARROW_DEFAULT_MEMORY_POOL, ...oneThread, TOKENIZERS_PARALLELISM: 'false', HF_HUB_OFFLINE: '1', PYTHONHASHSEED: '0' }

const { values } = parseArgs({ options: { only: { type: 'string' }, seed: { type: 'string', default: '1' } } })
const chosen = values.only?.split(',') ?? Object.keys(parts)
const wrong = chosen.find((name) => parts[name] === undefined)
if (wrong !== undefined) throw new Error(`--only: expected some of ${Object.keys(parts).join(',')}, got ${wrong.slice(0, 40)}`)
if (!/^\d{1,9}$/.test(values.seed)) throw new Error(`--seed: expected a whole number, got ${values.seed.slice(0, 40)}`)

/** Runs a script and gives its lines of JSON that are rows; what jobs log goes nowhere, the rest is passed on when it fails. */
const linesOf = async (script: string, work: string, pinned: boolean): Promise<unknown[]> => {
  const file = join(scripts, script)
  const child = spawn(config.python, [...(pinned ? [oneCore, file] : [file]), '--work', work, '--seed', values.seed], { cwd: home, env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
  const exit = once(child, 'exit') as Promise<[number | null]>
  const errors: string[] = []
  const read = (async () => {
    for await (const line of createInterface({ input: child.stderr })) errors.push(line)
  })()
  const lines: unknown[] = []
  for await (const line of createInterface({ input: child.stdout })) if (line.startsWith('{"measure"')) lines.push(JSON.parse(line))
  await read
  const [code] = await exit
  if (code !== 0) throw new Error(`test/bench/train/${script} ended with code ${code}:\n${errors.slice(-20).join('\n')}`)
  return lines
}

const rounded = (value: number): number => Number(value.toPrecision(4))
const rowOf = (part: string, line: unknown): TrainRow => {
  const p = Printed.parse(line)
  const row = { part, ...p, ours: rounded(p.ours), peer: p.peer === null ? null : rounded(p.peer), ratio: p.ratio === null ? null : rounded(p.ratio) }
  say(`${row.measure}: ${row.ours} ${row.unit}${row.peerName === null ? '' : `, ${row.peerName} ${row.peer ?? '?'}`}${row.ratio === null ? '' : `, ratio ${row.ratio}`}; goal ${row.goal}: ${row.holds ? 'holds' : 'MISSED'}`)
  if (row.profile !== null) say(row.profile)
  return row
}

const tableOf = (rows: readonly TrainRow[]): string => {
  const lines = rows.map((r) => `| ${[r.measure, `${r.ours} ${r.unit}`, r.peerName === null ? '' : `${r.peerName}: ${r.peer ?? '?'}`, r.ratio ?? '', r.goal, r.holds ? 'yes' : '**no**'].join(' | ')} |`)
  return ['| measure | ours | beside it | ratio | goal | holds |', '|---|---:|---|---:|---|---|', ...lines].join('\n')
}

/** The rows of the parts that were run are replaced, all others stay. */
const write = async (rows: readonly TrainRow[]): Promise<void> => {
  const before = JSON.parse(await readFile(results, 'utf8').catch(() => '[]')) as TrainRow[]
  const order = Object.keys(parts)
  const all = [...before.filter((r) => !chosen.includes(r.part)), ...rows].sort((a, b) => order.indexOf(a.part) - order.indexOf(b.part))
  await writeFile(results, `${JSON.stringify(all, null, 2)}\n`)
  const text = await readFile(page, 'utf8')
  if (!between.test(text)) throw new Error('docs/benchmarks.md has no place for the table: expected <!-- train table --> and <!-- end -->')
  await writeFile(page, text.replace(between, (_all, from: string, to: string) => `${from}${tableOf(all)}\n${to}`))
}

const began = performance.now()
const folder = await mkdtemp(join(tmpdir(), 'cpt-train-'))
try {
  say('the sample corpus as a committed one, a small and a larger model')
  await linesOf('world.py', folder, false)
  const rows: TrainRow[] = []
  for (const part of chosen) {
    say(part)
    for (const line of await linesOf(`${part}.py`, folder, parts[part]?.pinned === true)) rows.push(rowOf(part, line))
  }
  await write(rows)
  say(`${((performance.now() - began) / 60_000).toFixed(1)} minutes in all`)
  console.table(rows.map(({ profile: _profile, ...row }) => row))
} catch (e) {
  process.exitCode = 1
  process.stderr.write(`${e instanceof Error ? (e.stack ?? e.message) : String(e)}\n`)
} finally {
  await rm(folder, { recursive: true, force: true, maxRetries: 5 })
}
