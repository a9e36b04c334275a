/**
 * `npm run bench:data`: the data stages beside the field's tools, on the sample corpus enlarged by repetition with noise,
 * each on one core. Prints and writes test/bench/results/data.json and the table of docs/benchmarks.md, which says how it is
 * measured. `-- --only filter,dedup`: some stages, all other rows stay. `-- --docs N`: the size; any but the default writes
 * nothing. `-- --grow N`: documents of the small corpus for the rows of growth, 0: none. `-- --seed S`.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs, promisify } from 'node:util'
import { z } from 'zod'
import { loadConfig } from '../../activities/src/config.ts'
import { provideBenchPython } from '../../infra/bootstrap/bench-environment.mjs'
import type { BenchRow } from './row.ts'

/** What test/bench/data/<stage>.py prints, a line each. */
const Printed = z.strictObject({
  measure: z.string(), ours: z.number(), peer: z.number().nullable(), peerName: z.string().nullable(), unit: z.string(),
  ratio: z.number().nullable(), goal: z.string(), holds: z.boolean(), profile: z.string().nullable(),
})
interface DataRow extends BenchRow {
  stage: string
  profile: string | null
}
const Growth = z.object({ seconds: z.number(), peakMiB: z.number() })

const home = new URL('../../', import.meta.url).pathname
const scripts = join(home, 'test/bench/data')
const results = join(home, 'test/bench/results/data.json')
const page = join(home, 'docs/benchmarks.md')
const between = /(<!-- data table -->\n)[^]*?(<!-- end -->)/
const defaultDocs = '6000'
/** One stage after the other, as the data goes. */
const order = ['ingest', 'filter', 'dedup', 'decontaminate', 'topics', 'hold-out', 'tokens', 'perplexity', 'count-strata']
/** Stages whose growth is measured, by where their rows stand: a script called tokenize.py would hide Python's own module. */
const growing: Readonly<Record<string, readonly string[]>> = {
  ingest: ['ingest'], filter: ['filter'], dedup: ['dedup-signatures', 'dedup'], decontaminate: ['decontaminate'], topics: ['classify-topics'],
  'hold-out': ['hold-out'], tokens: ['tokenize'], perplexity: ['score-ppl'], 'count-strata': ['count-strata'],
}

const say = (text: string): void => void process.stdout.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`)
const oneThread = Object.fromEntries(['OMP', 'MKL', 'OPENBLAS', 'RAYON', 'NUMEXPR'].map((n) => [`${n}_NUM_THREADS`, '1']))
const { GLIBC_TUNABLES, ARROW_DEFAULT_MEMORY_POOL } = loadConfig({ CPT_HOME: home }).jobEnv
const environment = { ...process.env, GLIBC_TUNABLES, ARROW_DEFAULT_MEMORY_POOL, ...oneThread, POLARS_MAX_THREADS: '1', TOKENIZERS_PARALLELISM: 'false', HF_HUB_OFFLINE: '1', PYTHONHASHSEED: '0' }

const { values } = parseArgs({ options: { only: { type: 'string' }, docs: { type: 'string', default: defaultDocs }, seed: { type: 'string', default: '1' }, grow: { type: 'string', default: '3000' } } })
const count = (option: string, text: string): number => {
  if (!/^\d{1,9}$/.test(text)) throw new Error(`--${option}: expected a whole number, got ${text.slice(0, 40)}`)
  return Number(text)
}
const docs = count('docs', values.docs)
const seed = count('seed', values.seed)
const grow = count('grow', values.grow)

const scriptsThere = async (): Promise<string[]> => (await readdir(scripts)).filter((n) => n.endsWith('.py') && n !== 'enlarge.py').map((n) => n.slice(0, -3))
const inOrder = (names: readonly string[]): string[] => {
  const place = (name: string): number => (order.includes(name) ? order.indexOf(name) : order.length)
  return [...names].sort((a, b) => place(a) - place(b) || a.localeCompare(b))
}
const chosenOf = (known: readonly string[]): string[] => {
  const names = values.only?.split(',') ?? known
  const wrong = names.find((n) => !known.includes(n))
  if (wrong !== undefined) throw new Error(`--only: expected some of ${known.join(',')}, got ${wrong.slice(0, 40)}`)
  return known.filter((n) => names.includes(n))
}

/** Runs a script on one core and gives its lines of JSON; everything else that it prints is passed on. */
const linesOf = async (python: string, script: string, args: string[]): Promise<unknown[]> => {
  const child = spawn(python, [join(scripts, 'common/one_core.py'), join(scripts, script), ...args], { cwd: home, env: environment, stdio: ['ignore', 'pipe', 'inherit'] })
  const exit = once(child, 'exit') as Promise<[number | null]>
  const lines: unknown[] = []
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith('{')) lines.push(JSON.parse(line))
    else process.stdout.write(`${line}\n`)
  }
  const [code] = await exit
  if (code !== 0) throw new Error(`test/bench/data/${script} ended with code ${code}; see its output above`)
  return lines
}

const rounded = (value: number): number => Number(value.toPrecision(4))
const table: DataRow[] = []
const add = (stage: string, printed: z.output<typeof Printed>): void => {
  const row: DataRow = { stage, ...printed, ours: rounded(printed.ours), peer: printed.peer === null ? null : rounded(printed.peer), ratio: printed.ratio === null ? null : rounded(printed.ratio) }
  table.push(row)
  say(`${row.stage}: ${row.measure}: ${row.ours} ${row.unit}${row.peerName === null ? '' : `, ${row.peerName} ${row.peer ?? '?'}`}${row.ratio === null ? '' : `, ratio ${row.ratio}`}; goal ${row.goal}: ${row.holds ? 'holds' : 'MISSED'}`)
  if (row.profile !== null) say(row.profile)
}

/** Ten times the documents in ten shards instead of one, each size in a process of its own; what the stages read is made once. */
const prepared = new Set<number>()
const measureGrowth = async (python: string, folder: string, place: string, stage: string): Promise<void> => {
  const at = async (size: number): Promise<z.output<typeof Growth>> => {
    const args = ['--work', join(folder, `grow-${size}`), '--docs', String(size), '--shard-docs', String(grow), '--seed', String(seed)]
    if (!prepared.has(size)) await linesOf(python, 'common/grow.py', ['prepare', ...args])
    prepared.add(size)
    const runs: z.output<typeof Growth>[] = []
    for (const run of ['first', 'second']) runs.push(Growth.parse((await linesOf(python, 'common/grow.py', ['measure', ...args, '--stage', stage, '--run', run]))[0]))
    return { seconds: Math.min(...runs.map((r) => r.seconds)), peakMiB: Math.min(...runs.map((r) => r.peakMiB)) }
  }
  const [small, large] = [await at(grow), await at(10 * grow)]
  const row = (measure: string, ours: number, peer: number, unit: string, most: number): void =>
    add(place, { measure: `${stage}: ${measure} for ${10 * grow} documents`, ours, peer, peerName: `${grow} documents`, unit, ratio: ours / peer, goal: `<= ${most}`, holds: ours / peer <= most, profile: null })
  row('time', large.seconds, small.seconds, 's', 11)
  row('peak memory', large.peakMiB, small.peakMiB, 'MiB', 1.1)
}

/** The rows of a stage are replaced, all others stay: a run that is interrupted keeps the stages that are done. */
const write = async (stage: string): Promise<void> => {
  const before = JSON.parse(await readFile(results, 'utf8').catch(() => '[]')) as DataRow[]
  const rows = [...before.filter((r) => r.stage !== stage), ...table.filter((r) => r.stage === stage)].sort((a, b) => order.indexOf(a.stage) - order.indexOf(b.stage))
  await writeFile(results, `${JSON.stringify(rows, null, 2)}\n`)
  const text = await readFile(page, 'utf8')
  if (!between.test(text)) throw new Error('docs/benchmarks.md has no place for the table: expected <!-- data table --> and <!-- end -->')
  await writeFile(page, text.replace(between, (_all, from: string, to: string) => `${from}${tableOf(rows)}\n${to}`))
}
const tableOf = (rows: readonly DataRow[]): string => {
  const lines = rows.map((r) => `| ${[r.stage, r.measure, `${r.ours} ${r.unit}`, r.peerName === null ? '' : `${r.peerName}: ${r.peer ?? '?'}`, r.ratio ?? '', r.goal, r.holds ? 'yes' : '**no**'].join(' | ')} |`)
  return ['| stage | measure | ours | beside it | ratio | goal | holds |', '|---|---|---:|---|---:|---|---|', ...lines].join('\n')
}

const folder = await mkdtemp(join(tmpdir(), 'cpt-data-'))
try {
  const scripted = await scriptsThere()
  const stages = chosenOf(inOrder([...new Set([...scripted, ...Object.keys(growing)])]))
  const python = await provideBenchPython()
  say(`the sample corpus, enlarged to ${docs} documents`)
  await promisify(execFile)(python, [join(scripts, 'enlarge.py'), '--samples', join(home, 'samples/corpus'), '--work', folder, '--docs', String(docs), '--seed', String(seed)], { env: environment })
  for (const stage of stages) {
    say(stage)
    const lines = scripted.includes(stage) ? await linesOf(python, `${stage}.py`, ['--work', folder, '--docs', String(docs), '--seed', String(seed)]) : []
    for (const line of lines) add(stage, Printed.parse(line))
    if (grow > 0) for (const grown of growing[stage] ?? []) await measureGrowth(python, folder, stage, grown)
    if (values.docs === defaultDocs) await write(stage)
  }
  console.table(table.map(({ profile: _profile, ...row }) => row))
} catch (e) {
  process.exitCode = 1
  process.stderr.write(`${e instanceof Error ? (e.stack ?? e.message) : String(e)}\n`)
} finally {
  await rm(folder, { recursive: true, force: true, maxRetries: 5 })
}
