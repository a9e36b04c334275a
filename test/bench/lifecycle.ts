/**
 * `npm run bench:lifecycle`: the quickstart's lifecycle in a fresh state folder, then again without a change. Prints and
 * writes test/bench/results/lifecycle.json. Times are of this machine; ratios to the goals are what counts.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { EndRecord } from '@cpt/contracts/job'
import type { BenchRow } from './row.ts'

const home = new URL('../../', import.meta.url).pathname
const cli = join(home, 'cli/bin/cpt.js')
const state = await mkdtemp(join(tmpdir(), 'cpt-bench-'))
const environment = { ...process.env, CPT_STATE: state }

/** Seconds from the first stage's start to the last one's end, and the wall seconds of the whole command. */
const quickstart = async (): Promise<number> => {
  const before = performance.now()
  const child = spawn(process.execPath, [cli, 'quickstart'], { cwd: home, env: environment, stdio: ['ignore', 'inherit', 'inherit'] })
  const [code] = (await once(child, 'exit')) as [number | null]
  if (code !== 0) throw new Error(`cpt quickstart ended with code ${code}; see its output above`)
  return (performance.now() - before) / 1000
}

/** What the report knows of the newest run: start and end of its lines. */
const lifecycle = async (): Promise<{ seconds: number; fromMs: number; toMs: number }> => {
  const reports = join(state, 'reports')
  const runs = await Promise.all((await readdir(reports)).map(async (name) => ({ path: join(reports, name, 'run.json'), at: (await stat(join(reports, name, 'run.json')).catch(() => null))?.mtimeMs ?? 0 })))
  const newest = runs.sort((a, b) => b.at - a.at)[0]
  if (newest === undefined || newest.at === 0) throw new Error(`no run.json under ${reports}`)
  const run = JSON.parse(await readFile(newest.path, 'utf8')) as { startedAtMs: number; wallSeconds: number }
  return { seconds: run.wallSeconds, fromMs: run.startedAtMs, toMs: run.startedAtMs + run.wallSeconds * 1000 }
}

/** Share of [from, to] in which no job was past its start-up (imports do not count as computing). */
const idleShare = async (fromMs: number, toMs: number): Promise<number> => {
  const jobs = join(state, 'store', 'jobs')
  const ends = (await readdir(jobs, { recursive: true })).filter((n) => n.endsWith('end.json'))
  const busy = await Promise.all(ends.map(async (name) => {
    const end = EndRecord.parse(JSON.parse(await readFile(join(jobs, name), 'utf8')))
    const toAt = (await stat(join(jobs, name))).mtimeMs
    return [toAt - (end.wallSeconds - (end.startupSeconds ?? 0)) * 1000, toAt] as const
  }))
  let [covered, reached] = [0, fromMs]
  for (const [a, b] of busy.sort((x, y) => x[0] - y[0])) {
    const [start, stop] = [Math.max(a, reached), Math.min(b, toMs)]
    if (stop > start) covered += stop - start
    reached = Math.max(reached, stop)
  }
  return 1 - covered / (toMs - fromMs)
}

const run = promisify(execFile)
const millisecondsOf = async (args: string[]): Promise<number> => {
  const times: number[] = []
  for (let i = 0; i < 7; i++) {
    const before = performance.now()
    await run(process.execPath, args)
    times.push(performance.now() - before)
  }
  return times.sort((a, b) => a - b)[3] ?? 0
}

const row = (measure: string, ours: number, unit: string, most: number, peer: { name: string; value: number } | null = null): BenchRow => ({
  measure, ours: Number(ours.toFixed(3)), peer: peer === null ? null : Number(peer.value.toFixed(3)), peerName: peer?.name ?? null, unit,
  ratio: Number((ours / (peer?.value ?? most)).toFixed(3)), goal: `<= ${most} ${unit}`, holds: ours <= most,
})

try {
  const firstCommand = await quickstart()
  const first = await lifecycle()
  const idle = await idleShare(first.fromMs, first.toMs)
  await quickstart()
  const second = await lifecycle()
  const rows = [
    row('lifecycle of the quickstart, first run', first.seconds, 's', 300),
    row('share of it in which no job computes', idle, 'of the time', 0.1),
    row('lifecycle again without a change', second.seconds, 's', 20, { name: 'the first run', value: first.seconds }),
    row('cpt --help', await millisecondsOf([cli, '--help']), 'ms', 300, { name: 'node -e 0', value: await millisecondsOf(['-e', '0']) }),
  ]
  console.table(rows)
  process.stdout.write(`the whole command, server and worker included: ${firstCommand.toFixed(1)} s\n`)
  await writeFile(join(home, 'test/bench/results/lifecycle.json'), `${JSON.stringify(rows, null, 2)}\n`)
} finally {
  await rm(state, { recursive: true, force: true })
}
