import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { WorkflowHandle } from '@temporalio/client'
import type { CorpusPreparationResult } from '@cpt/contracts/committed-corpus'
import type { CptRunInput, RunProgress } from '@cpt/contracts/cpt-run'
import { controlQueue } from '@cpt/contracts/ids'
import { failureOf, pageOf, progressOf, resultOf, startRun, type RunHandle } from '../harness/runs.ts'
import { briefRun, makeSmallCorpus } from '../harness/small-run.ts'
import { nothingLeft } from '../harness/store.ts'
import { startSystem, type System } from '../harness/system.ts'

let small: Awaited<ReturnType<typeof makeSmallCorpus>>
let system: System
beforeAll(async () => {
  small = await makeSmallCorpus()
  system = await startSystem({ roots: { small: small.dir } })
})
afterAll(() => system.stop().finally(() => small.remove()))

const { corpus: shared, ...rest } = briefRun()

type Preparation = WorkflowHandle<(input?: CptRunInput) => Promise<CorpusPreparationResult>>
const prepare = async (corpus: CptRunInput['corpus']): Promise<Preparation> =>
  await system.client.workflow.start('corpusPreparation', { taskQueue: controlQueue, workflowId: `inputs/${randomUUID().slice(0, 8)}`, args: [{ ...rest, corpus }] })
const asRun = ({ workflowId }: Preparation): RunHandle => system.client.workflow.getHandle(workflowId)
const statesOf = ({ stages }: RunProgress): Record<string, string> => Object.fromEntries(stages.map((s) => [s.key, s.state]))

test('a run goes without the stages that its input has off, and its page and report say so', async () => {
  const off = ['filter', 'dedup', 'decontaminate', 'classify-topics', 'score-ppl'] as const
  const run = await startRun(system, 'stages-off', { ...rest, plan: (rest.plan ?? []).map((stage) => ({ ...stage, tokens: 3 * stage.tokens })), corpus: { ...shared, off: [...off] } })
  const { report } = await resultOf(run)
  const states = statesOf(await progressOf(run))
  expect(Object.entries(states).filter(([, state]) => state === 'skipped').map(([key]) => key)).toEqual(off)
  expect(states).toMatchObject({ 'ingest': 'done', 'hold-out': 'done', 'tokenize': 'done', 'count-strata': 'done', 'only/round-1/train': 'done' })
  expect(Object.keys(states).filter((key) => key.startsWith('train-topic-classifier') || key === 'dedup-signatures')).toEqual([])
  expect(await pageOf(run)).toMatch(/`filter`.*off in the input/)
  expect(await readFile(report, 'utf8')).toContain(`Off in the input: ${off.join(', ')}.`)
  await nothingLeft(system.storeDir)
})

test('what a run needs of a stage that is off is refused by its path; a preparation goes without', async () => {
  const plan = (rest.plan ?? []).map((stage) => ({ ...stage, order: 'perplexity' as const, reweight: true }))
  const refused = await startRun(system, 'needs', { ...rest, plan, corpus: { ...shared, off: ['classify-topics', 'hold-out', 'score-ppl'] } })
  expect(await failureOf(refused)).toMatchObject({ type: 'InvalidInput', problems: [{ path: 'corpus.off.1' }, { path: 'plan.0.order' }, { path: 'plan.0.reweight' }] })

  const bare = await prepare({ ...shared, name: 'bare', off: ['filter', 'dedup', 'decontaminate', 'classify-topics', 'hold-out', 'score-ppl'] })
  const { docs, tokens } = await bare.result()
  expect(docs).toBeGreaterThan(0)
  expect(tokens).toBeGreaterThan(docs)
  expect(statesOf(await progressOf(asRun(bare)))).toMatchObject({ 'hold-out': 'skipped', 'commit-corpus': 'done' })
  expect(await failureOf(await startRun(system, 'takes-bare', { ...rest, corpus: { newest: 'bare' } }))).toMatchObject({ type: 'InvalidInput', problems: [{ path: 'corpus.newest', got: 'one prepared without' }] })
})
