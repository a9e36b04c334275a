/**
 * `npm run bench:sweep`: 18 trials of the sample sweep by `almrLrSweep`, by Optuna and by Ray Tune with the same training
 * function, then each killed half-way. Prints and writes test/bench/results/sweep.json and the table of docs/benchmarks.md,
 * which says how it is measured. `-- --quick`: three trials, nothing written. `-- --only ours,optuna,ray`, `-- --part wall,kills`: some of it.
 */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { AlmrLrSweepInput } from '@cpt/contracts/almr-lr-sweep'
import { startOrder } from '@cpt/workflows/sweep/grid'
import { provideBenchPython } from '../../infra/bootstrap/bench-environment.mjs'
import { startSystem, type System } from '../harness/system.ts'
import type { BenchRow } from './row.ts'
import { forgetTrials, prepare, sweepKilled, sweepOnce, trialStages, type TrialJobs } from './sweep/ours.ts'
import { peerKilled, peerOnce, stopPeers, titleOf, type PeerCase, type PeerName } from './sweep/peer.ts'
import { compare, idleShare, profile, wallSeconds, type Loss, type SweepRun } from './sweep/sweep-run.ts'

/** A row with the seconds of each side's lanes, where the goal was missed. */
interface SweepRow extends BenchRow {
  profile: Record<string, Record<string, number>> | null
}

const results = new URL('results/sweep.json', import.meta.url)
const page = new URL('../../docs/benchmarks.md', import.meta.url)
const between = /(<!-- sweep table -->\n)[^]*?(<!-- end -->)/
const parallel = 2
const mostSeconds = 480
const mostIdle = 0.1

const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false }, only: { type: 'string', default: 'ours,optuna,ray' }, part: { type: 'string', default: 'wall,kills' } } })
const chosen = (option: string, text: string, known: readonly string[]): Set<string> => {
  const names = text.split(',')
  const wrong = names.find((n) => !known.includes(n))
  if (wrong !== undefined) throw new Error(`--${option}: expected some of ${known.join(',')}, got ${wrong.slice(0, 40)}`)
  return new Set(names)
}
const sides = chosen('only', values.only, ['ours', 'optuna', 'ray'])
const parts = chosen('part', values.part, ['wall', 'kills'])
const peers = (['optuna', 'ray'] as const).filter((name) => sides.has(name))

const input: AlmrLrSweepInput = {
  name: 'bench', owner: 'bench', parallel, whenUnchanged: 'sweep',
  grid: values.quick ? { almr: [0.25, 0.5], peakLrs: [0.001], seeds: [1] } : { almr: [0.25, 0.5] },
}
const numTrials = values.quick ? 3 : 18

const say = (text: string): void => void process.stdout.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`)
const rounded = (value: number): number => Number(value.toFixed(3))
const table: SweepRow[] = []
const add = (row: Omit<SweepRow, 'profile' | 'ratio'> & Partial<SweepRow>): void => {
  const { ours, peer } = row
  const full: SweepRow = { profile: null, ratio: peer === null || peer === 0 ? null : rounded(ours / peer), ...row, ours: rounded(ours), peer: peer === null ? null : rounded(peer) }
  table.push(full)
  say(`${full.measure}: ${full.ours} ${full.unit}${full.peerName === null ? '' : `, ${full.peerName} ${full.peer ?? '?'}${full.ratio === null ? '' : `, ratio ${full.ratio}`}`}; goal ${full.goal}: ${full.holds ? 'holds' : 'MISSED'}`)
  if (full.profile !== null) console.table(full.profile)
}

const reportWall = (ours: SweepRun, theirs: readonly SweepRun[]): void => {
  const wall = wallSeconds(ours)
  const idle = idleShare(ours, parallel)
  add({ measure: `${numTrials} trials, from the start of the sweep to its verdict`, ours: wall, peer: null, peerName: null, unit: 's', ratio: rounded(wall / mostSeconds), goal: `<= ${mostSeconds} s`, holds: wall <= mostSeconds, profile: profileIf(wall > mostSeconds, ours) })
  add({ measure: 'share of the lanes in which no job of a trial computes', ours: idle, peer: null, peerName: null, unit: 'of the time', ratio: rounded(idle / mostIdle), goal: `<= ${mostIdle} of the time`, holds: idle <= mostIdle, profile: profileIf(idle > mostIdle, ours) })
  for (const run of theirs) {
    const { largest, otherBits } = compare(ours, run)
    add({ measure: `${numTrials} trials beside ${run.driver}`, ours: wall, peer: wallSeconds(run), peerName: run.driver, unit: 's', goal: '<= the peer', holds: wall <= wallSeconds(run), profile: profileIf(wall > wallSeconds(run), ours, run) })
    add({ measure: `idle share beside ${run.driver}`, ours: idle, peer: idleShare(run, parallel), peerName: run.driver, unit: 'of the time', goal: 'printed', holds: true })
    add({ measure: `models with other bits than ${run.driver}'s`, ours: otherBits, peer: null, peerName: null, unit: `of ${numTrials}`, goal: '0', holds: otherBits === 0 })
    add({ measure: `largest difference of a validation loss from ${run.driver}'s`, ours: largest, peer: null, peerName: null, unit: 'nats/token', goal: '0', holds: largest === 0 })
  }
}
const profileIf = (missed: boolean, ...runs: SweepRun[]): SweepRow['profile'] => (missed ? Object.fromEntries(runs.map((r) => [r.driver, profile(r, parallel)])) : null)

/** What SIGKILL half-way cost. A peer has one form of it, the driver and all it started, which is beside both of ours. */
const reportLoss = (ours: Loss, theirs: readonly Loss[], undisturbed: ReadonlyMap<string, number>, interval: number): void => {
  const most = (l: Loss): number => Math.max(0, ...l.tokensTwice)
  const extra = (l: Loss): number | null => (undisturbed.has(l.driver) ? l.wallSeconds - undisturbed.get(l.driver)! : null)
  const peersOrNone = theirs.length === 0 ? [null] : theirs
  for (const peer of peersOrNone) {
    const row = (what: string): string => `${ours.how} killed: ${what}${peer === null ? '' : `, beside ${peer.driver}`}`
    const beside = (value: (l: Loss) => number | null): Pick<BenchRow, 'ours' | 'peer' | 'peerName'> => ({ ours: value(ours) ?? 0, peer: peer === null ? null : value(peer), peerName: peer?.driver ?? null })
    add({ measure: row('most tokens that a trial trained twice'), ...beside(most), unit: 'tokens', goal: `<= one checkpoint interval, ${interval} tokens`, holds: most(ours) <= interval })
    add({ measure: row('trials that began anew'), ...beside((l) => l.trialsFromZero), unit: `of ${ours.tokensTwice.length} in training`, goal: '0', holds: ours.trialsFromZero === 0 && ours.tokensTwice.length > 0 })
    add({ measure: row('trials run again that were over'), ...beside((l) => l.trialsAgain), unit: 'trials', goal: '0', holds: ours.trialsAgain === 0 })
    add({ measure: row('seconds more than undisturbed'), ...beside(extra), unit: 's', ratio: null, goal: 'printed', holds: true })
  }
}

/** Tokens between two checkpoints of a trial, by the rule of ml/cpt_ml/train_state.py: given steps, or a twentieth of them. */
const checkpointInterval = ([trial]: readonly TrialJobs[]): number => {
  const job = trial?.jobs[trialStages.indexOf('train')]
  const { tokenBudget, globalBatchTokens } = job?.request as { tokenBudget: number; globalBatchTokens: number }
  return (job?.placement.checkpointEverySteps ?? Math.ceil(tokenBudget / globalBatchTokens / 20)) * globalBatchTokens
}

/** The trials in the order in which ours begin them: a peer's lanes are as even. */
const inStartOrder = (jobs: TrialJobs[], points: { almr: number; peakLr: number; seed: number }[]): TrialJobs[] => {
  const order = startOrder({ almr: points.map((p) => p.almr), peakLrs: points.map((p) => p.peakLr), seeds: points.map((p) => p.seed) })
  return order.flatMap((index) => jobs.filter((j) => j.index === index))
}

const bench = async (system: System, folder: string): Promise<void> => {
  say('preparing the corpus, for all sides and counted for none')
  await prepare(system, input)
  const prepared = join(folder, 'prepared')
  for (const kind of ['commits', 'data']) await cp(join(system.storeDir, kind), join(prepared, kind), { recursive: true })
  const python = peers.length === 0 ? '' : await provideBenchPython()

  say(`ours: ${numTrials} trials`)
  const ours = await sweepOnce(system, input)
  if (ours.run.trials.size !== numTrials) throw new Error(`the sweep has ${ours.run.trials.size} trials, expected ${numTrials}: see grid in samples/sweep.yaml`)
  const undisturbed = new Map([['ours', wallSeconds(ours.run)]])
  const trials = inStartOrder(ours.jobs, ours.points)
  const caseOf = (name: PeerName, run: string): PeerCase => ({ name, python, config: system.config, prepared, trials, work: join(folder, `${name}-${run}`) })
  const interval = checkpointInterval(trials)
  await forgetTrials(system)

  if (parts.has('wall')) {
    const theirs: SweepRun[] = []
    for (const name of peers) {
      say(`${titleOf[name]}: ${numTrials} trials`)
      const { run, commandSeconds, begun } = await peerOnce(caseOf(name, 'wall'))
      say(`${titleOf[name]}: ${wallSeconds(run).toFixed(1)} s of trials, ${commandSeconds.toFixed(1)} s the whole command; ${begun} trials begun`)
      undisturbed.set(run.driver, wallSeconds(run))
      theirs.push(run)
    }
    reportWall(ours.run, theirs)
    for (const name of peers.slice(0, 1)) {
      say(`${titleOf[name]}, with the allocator settings of our jobs: ${numTrials} trials`)
      const { run } = await peerOnce({ ...caseOf(name, 'allocator'), ourAllocator: true })
      add({ measure: `${numTrials} trials beside ${titleOf[name]} with the allocator settings of our jobs`, ours: wallSeconds(ours.run), peer: wallSeconds(run), peerName: run.driver, unit: 's', goal: 'printed', holds: true })
    }
  }
  if (parts.has('kills')) {
    const losses: Loss[] = []
    for (const name of peers) {
      say(`${titleOf[name]}: killed half-way`)
      const { run, loss } = await peerKilled(caseOf(name, 'kill'), parallel)
      compare(ours.run, run)
      losses.push(loss)
    }
    for (const kill of ['worker', 'everything'] as const) {
      if (!sides.has('ours')) continue
      say(`ours: ${kill} killed half-way`)
      const { run, loss } = await sweepKilled(system, input, kill, numTrials, parallel)
      const { otherBits } = compare(ours.run, run)
      add({ measure: `${loss.how} killed: models with other bits`, ours: otherBits, peer: null, peerName: null, unit: `of ${numTrials}`, goal: '0', holds: otherBits === 0 })
      reportLoss(loss, losses, undisturbed, interval)
    }
    for (const { driver, how, ...numbers } of losses) say(`${driver}, ${how}: ${JSON.stringify(numbers)}`)
  }
}

/** Rows of the same measure are replaced, all others stay: a part may be measured by itself. */
const write = async (): Promise<void> => {
  const before = JSON.parse(await readFile(results, 'utf8').catch(() => '[]')) as SweepRow[]
  const fresh = new Set(table.map((r) => r.measure))
  const rows = [...before.filter((r) => !fresh.has(r.measure)), ...table]
  await writeFile(results, `${JSON.stringify(rows, null, 2)}\n`)
  const text = await readFile(page, 'utf8')
  if (!between.test(text)) throw new Error('docs/benchmarks.md has no place for the table: expected <!-- sweep table --> and <!-- end -->')
  await writeFile(page, text.replace(between, (_all, from: string, to: string) => `${from}${tableOf(rows)}\n${to}`))
}

const tableOf = (rows: readonly SweepRow[]): string => {
  const lines = rows.map((r) => `| ${[r.measure, `${r.ours} ${r.unit}`, r.goal, r.holds ? 'yes' : '**no**', r.peerName === null ? '' : `${r.peerName}: ${r.peer ?? '?'}${r.ratio === null ? '' : `, ratio ${r.ratio}`}`].join(' | ')} |`)
  return ['| measure | ours | goal | holds | beside it |', '|---|---:|---|---|---|', ...lines].join('\n')
}

const folder = await mkdtemp(join(tmpdir(), 'cpt-sweep-'))
const interrupted = new Promise<never>((_, reject) => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    // a terminal's Ctrl-C arrives twice, from it and from the process that started this one
    process.on(signal, () => {
      // what waits for the server fails once it is gone, in timers too, and everything is still to be ended
      process.on('uncaughtException', () => undefined)
      reject(new Error(`ended by ${signal}`))
    })
  }
})
interrupted.catch(() => undefined)
let system: System | null = null
try {
  system = await startSystem({ settings: () => ({ CPT_WARM_IDLE_SECONDS: '7200' }) })
  const measured = bench(system, folder)
  // an interrupted one fails once more while everything is being ended
  measured.catch(() => undefined)
  await Promise.race([measured, interrupted])
  console.table(table.map(({ profile: _profile, ...row }) => row))
  if (!values.quick) await write()
} catch (e) {
  process.exitCode = 1
  process.stderr.write(`${e instanceof Error ? (e.stack ?? e.message) : String(e)}\n`)
} finally {
  await stopPeers()
  await system?.stop()
  await rm(folder, { recursive: true, force: true, maxRetries: 5 })
}
process.exit()
