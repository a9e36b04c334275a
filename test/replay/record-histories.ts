// Plays every scenario on a real server and worker and keeps the histories: `npm run record:histories [-- <scenario> ...]`.
// Until v0.1.0 they may be recorded anew; after it, histories are only added.
import { hostname } from 'node:os'
import { historyToJSON } from '@temporalio/common/lib/proto-utils'
import type { RunHandle } from '../harness/runs.ts'
import { makeSmallCorpus } from '../harness/small-run.ts'
import { startSystem, type System } from '../harness/system.ts'
import { buildBundles } from '../../infra/bootstrap/bundles.mjs'
import { writeHistories } from './recorded-histories.ts'
import { scenarios, type Scenario } from './scenarios.ts'
import { scrubHistory } from './scrub-history.ts'

/** The histories of a run and of those that it continued as, first to last. */
const historiesOf = async (system: System, run: RunHandle): Promise<unknown[]> => {
  const histories: unknown[] = []
  let runId = (await run.describe()).raw.workflowExecutionInfo?.firstRunId
  while (runId != null && runId !== '') {
    const history = await system.client.workflow.getHandle(run.workflowId, runId).fetchHistory()
    histories.push(JSON.parse(historyToJSON(history)))
    runId = history.events?.at(-1)?.workflowExecutionContinuedAsNewEventAttributes?.newExecutionRunId
  }
  return histories
}

const wanted = process.argv.slice(2)
const unknown = wanted.filter((name) => scenarios.every((s) => s.name !== name))
if (unknown.length > 0) throw new Error(`no scenario ${unknown.join(', ')}; there are ${scenarios.map((s) => s.name).join(', ')}`)
await buildBundles()
const corpus = await makeSmallCorpus()

/** Plays on one system what needs no server of its own, each of the others on a system of its own. */
const record = async (played: Scenario[]): Promise<void> => {
  const [first] = played
  if (first === undefined) return
  const system = await startSystem({ roots: { small: corpus.dir }, serverSettings: first.serverSettings ?? {} })
  try {
    const replacements = [[corpus.dir, '/data/small'], [system.stateDir, '/data/cpt'], [system.config.home, '/opt/cpt'], [/\/[^\s"':,]*\/lib\/python3[^\s"':,]*\//g, '/usr/lib/python3/'], [new RegExp(`\\d+@${hostname()}`, 'g'), '1@worker'], [hostname(), 'worker']] as const
    for (const { name, also = {}, play } of played) {
      const run = await play(system)
      for (const [part, suffix] of Object.entries(also)) {
        const child = system.client.workflow.getHandle(`${run.workflowId}/${suffix}`)
        await writeHistories(part, child.workflowId, (await historiesOf(system, child)).map((history) => scrubHistory(history, replacements)))
      }
      const histories = (await historiesOf(system, run)).map((history) => scrubHistory(history, replacements))
      await writeHistories(name, run.workflowId, histories)
      process.stderr.write(`${name}: ${(await run.describe()).status.name.toLowerCase()}${histories.length === 1 ? '' : ` after ${histories.length} runs`}\n`)
    }
  } finally {
    await system.stop()
  }
}

const chosen = scenarios.filter((s) => wanted.length === 0 || wanted.includes(s.name))
try {
  await record(chosen.filter((s) => s.serverSettings === undefined))
  for (const scenario of chosen.filter((s) => s.serverSettings !== undefined)) await record([scenario])
} finally {
  await corpus.remove()
}
