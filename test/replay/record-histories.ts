// Plays every scenario on a real server and worker and keeps the histories: `npm run record:histories`.
// Until v0.1.0 they may be recorded anew; after it, histories are only added.
import { mkdir, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { historyToJSON } from '@temporalio/common/lib/proto-utils'
import { makeSmallCorpus } from '../harness/small-run.ts'
import { startSystem } from '../harness/system.ts'
import { buildBundles } from '../../infra/bootstrap/bundles.mjs'
import { scenarios } from './scenarios.ts'
import { scrubHistory } from './scrub-history.ts'

const wanted = process.argv.slice(2)
const folder = fileURLToPath(new URL('histories/', import.meta.url))
await buildBundles()
await mkdir(folder, { recursive: true })
const corpus = await makeSmallCorpus()
try {
  const system = await startSystem({ roots: { small: corpus.dir } })
  try {
    const replacements = [[corpus.dir, '/data/small'], [system.stateDir, '/data/cpt'], [system.config.home, '/opt/cpt'], [/\/[^\s"':,]*\/lib\/python3[^\s"':,]*\//g, '/usr/lib/python3/'], [new RegExp(`\\d+@${hostname()}`, 'g'), '1@worker'], [hostname(), 'worker']] as const
    for (const { name, play } of scenarios.filter((s) => wanted.length === 0 || wanted.includes(s.name))) {
      const run = await play(system)
      const history = scrubHistory(JSON.parse(historyToJSON(await run.fetchHistory())), replacements)
      await writeFile(join(folder, `${name}.json`), `${JSON.stringify({ workflowId: run.workflowId, history })}\n`)
      process.stderr.write(`${name}: ${(await run.describe()).status.name.toLowerCase()}\n`)
    }
  } finally {
    await system.stop()
  }
} finally {
  await corpus.remove()
}
