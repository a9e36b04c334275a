/**
 * `npm run chaos`: the table of docs/benchmarks.md, section Chaos. `-- --only <section> --seed N --count N --runner local`
 * measures one part of it; `--prepared FOLDER` keeps the store that experiments start from between sessions,
 * `--named REGEX` tries only the planted bugs of such names, `--minutes N` (60) begins nothing after that time. Rows go to test/bench/results/chaos.json as each section ends.
 */
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { DefaultLogger, Runtime } from '@temporalio/worker'
import { buildBundles } from '../../infra/bootstrap/bundles.mjs'
import { killsSection, recoverySection, serverSection } from './kills.ts'
import { leaveSection } from './leave.ts'
import { raceOnStores } from './store-race.ts'
import { lostAnswersOnLocal, lostAnswersOnSlurm } from './lost-answers.ts'
import { bugsSection, controlsSection, plantedBugs } from './planted.ts'
import { openSession, rowOf, type Session } from './session.ts'
import type { Runner } from './stand.ts'
import { boundOfZero, mergeRows, type Row } from './table.ts'

interface Section {
  runners: readonly Runner[]
  count: Record<Runner, number>
  run: (session: Session, runner: Runner) => Promise<Row[]>
}

const storeSection = async (session: Session): Promise<Row[]> => {
  const began = performance.now()
  return (await raceOnStores({ rounds: session.count })).map(({ store, rounds, processes, winnersPerRound, misreadRounds, distinctWinners }) => {
    const wrong = rounds - (winnersPerRound['1'] ?? 0) + misreadRounds
    return rowOf(session, began, {
      section: 'store', measure: `rounds of ${processes} processes racing for one record (${store === 'disk' ? 'local disk' : 'S3 server'}) without exactly one winner whom all read`, ours: wrong,
      unit: `of ${rounds}; ${distinctWinners} processes won some`, goal: '0', holds: wrong === 0, bound: wrong === 0 ? boundOfZero(rounds) : null, count: rounds,
    })
  })
}

const sections: Record<string, Section> = {
  answers: { runners: ['slurm', 'local'], count: { slurm: 200, local: 60 }, run: (session, runner) => (runner === 'slurm' ? lostAnswersOnSlurm(session) : lostAnswersOnLocal(session)) },
  recovery: { runners: ['local', 'slurm'], count: { local: 60, slurm: 20 }, run: recoverySection },
  kills: { runners: ['local', 'slurm'], count: { local: 140, slurm: 60 }, run: killsSection },
  server: { runners: ['local'], count: { local: 50, slurm: 0 }, run: serverSection },
  leave: { runners: ['local', 'slurm'], count: { local: 50, slurm: 50 }, run: leaveSection },
  bugs: { runners: ['local'], count: { local: plantedBugs.length, slurm: 0 }, run: bugsSection },
  controls: { runners: ['local'], count: { local: plantedBugs.length, slurm: 0 }, run: controlsSection },
  store: { runners: ['local'], count: { local: 10_000, slurm: 0 }, run: storeSection },
}

const { values } = parseArgs({ options: { only: { type: 'string' }, seed: { type: 'string', default: '1' }, count: { type: 'string' }, runner: { type: 'string' }, parallel: { type: 'string', default: '3' }, minutes: { type: 'string', default: '60' }, prepared: { type: 'string' }, named: { type: 'string', default: '' } } })
if (values.only !== undefined && !(values.only in sections)) throw new Error(`--only ${values.only}: expected one of ${Object.keys(sections).join(', ')}`)

// replayed histories are checked by their result
Runtime.install({ logger: new DefaultLogger('ERROR', () => undefined), telemetryOptions: { logging: { filter: 'OFF' } } })
const logs = (process.env['CPT_CHAOS_LOGS'] ??= mkdtempSync(join(tmpdir(), 'cpt-chaos-logs-')))
// whoever ends the session early ends its servers and workers too
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1))
await buildBundles()

const began = performance.now()
const say = (line: string): void => void process.stdout.write(`${((performance.now() - began) / 1000).toFixed(0).padStart(5)} s  ${line}\n`)
const { session, close } = openSession({ seed: Number(values.seed), count: 0, named: new RegExp(values.named), parallel: Number(values.parallel), deadlineMs: began + 60_000 * Number(values.minutes), say }, values.prepared ?? null)
say(`events of every experiment: ${logs}`)
let holds = true
try {
  for (const [name, section] of Object.entries(sections)) {
    if (values.only !== undefined && values.only !== name) continue
    for (const runner of section.runners) {
      if (values.runner !== undefined && values.runner !== runner) continue
      const rows = await section.run({ ...session, count: values.count === undefined ? section.count[runner] : Number(values.count) }, runner)
      await mergeRows(rows)
      console.table(rows.map(({ measure, ours, unit, goal, holds }) => ({ measure, ours, unit, goal, holds })))
      holds = holds && rows.every((r) => r.holds)
    }
  }
} finally {
  await close()
}
process.exitCode = holds ? 0 : 1
