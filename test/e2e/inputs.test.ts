import { createHash, randomUUID } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { WorkflowHandle } from '@temporalio/client'
import type { CorpusPreparationResult } from '@cpt/contracts/committed-corpus'
import type { CptRunInput, RunProgress } from '@cpt/contracts/cpt-run'
import { controlQueue } from '@cpt/contracts/ids'
import { failureOf, pageOf, progressOf, resultOf, stageIs, startRun, type RunHandle } from '../harness/runs.ts'
import { briefRun, makeSmallCorpus } from '../harness/small-run.ts'
import { commitsOf, jobsIn, nothingLeft } from '../harness/store.ts'
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

test('tokens that were made elsewhere join the plan as a pool of their own, to the last id', async () => {
  const { sha256, documents } = await writeTokens(join(small.dir, 'tokens'))
  const pile = { name: 'pile', path: 'small:tokens/', format: 'megatron' as const, language: 'en', kind: 'paper' as const, tokenizer: sha256 }
  const plan = (rest.plan ?? []).map((stage) => ({ ...stage, order: 'perplexity' as const, mixture: { languages: { en: 1 }, kinds: { en: { paper: 1 } } } }))
  const run = await startRun(system, 'tokens', { ...rest, targetLanguage: 'en', plan, gate: { z: 0, minGainNats: 0, retentionToleranceNats: 50 }, corpus: { ...shared, sources: [...(shared?.sources ?? []), pile] } })
  const trained = await stageIs(run, 'only/round-1/train', 'done')
  expect(statesOf(await progressOf(run))).toMatchObject({ 'import-tokens': 'done', 'score-ppl/imported': 'done', 'count-strata/imported': 'done' })
  const records = await commitsOf(system.storeDir)
  const imported = records.find((r) => r.stage === 'import-tokens' && 'units' in (r.result as object))
  expect(imported?.result).toMatchObject({ counts: { documents: documents.length, docs: documents.length, tokens: documents.flat().length, eodStripped: documents.length } })
  const unit = records.find((r) => r.stage === 'import-tokens' && r.files.some((f) => f.name.endsWith('.u32')))
  const bytes = await readFile(join(system.storeDir, unit?.files.find((f) => f.name.endsWith('.u32'))?.path ?? ''))
  expect([...new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)]).toEqual(documents.flat())
  const sampled = records.find((r) => r.stage === 'sample-mixture' && (r.request as { pools: { corpus: { uri: string } }[] }).pools.some((p) => p.corpus.uri.includes(imported?.fingerprint ?? '-')))
  expect(sampled?.result).toMatchObject({ strata: [{ language: 'en', kind: 'paper', topic: null }] })
  expect(trained.note).toContain('16384 tokens')
  await run.cancel()
  await run.result().catch(() => undefined)
  await nothingLeft(system.storeDir)
})

/** A Megatron-LM pair of seeded ids, each document ended by </s>, as preprocess_data.py --append-eod writes it. */
const writeTokens = async (folder: string): Promise<{ sha256: string; documents: number[][] }> => {
  const tokenizer = await readFile(join(system.config.home, 'samples/base/tokenizer.json'))
  const documents = Array.from({ length: 60 }, (_, d) => Array.from({ length: 150 + d }, (_, i) => 300 + ((7919 * d + 104_729 * i * i + 31 * i) % 3000)))
  const written = documents.map((ids) => [...ids, 1])
  const index = Buffer.alloc(34 + 12 * written.length + 8 * (written.length + 1))
  index.write('MMIDIDX\0\0', 'latin1')
  index.writeBigUInt64LE(1n, 9)
  index.writeUInt8(8, 17) // uint16
  index.writeBigUInt64LE(BigInt(written.length), 18)
  index.writeBigUInt64LE(BigInt(written.length + 1), 26)
  let place = 0
  written.forEach((ids, i) => {
    index.writeInt32LE(ids.length, 34 + 4 * i)
    index.writeBigInt64LE(BigInt(place), 34 + 4 * written.length + 8 * i)
    index.writeBigInt64LE(BigInt(i), 34 + 12 * written.length + 8 * i)
    place += 2 * ids.length
  })
  index.writeBigInt64LE(BigInt(written.length), 34 + 20 * written.length)
  await mkdir(folder)
  await writeFile(join(folder, 'pile.idx'), index)
  await writeFile(join(folder, 'pile.bin'), Buffer.from(Uint16Array.from(written.flat()).buffer))
  return { sha256: createHash('sha256').update(tokenizer).digest('hex'), documents }
}

test('preparations whose sources overlap do each unit once, at the same time or one after the other', async () => {
  const of = (...names: string[]) => (shared?.sources ?? []).filter((s) => names.includes(s.name))
  // sources that nothing before has read
  const fresh = async (name: string): Promise<string> => {
    const lines = (await readFile(join(small.dir, `${name}.jsonl`), 'utf8')).trimEnd().split('\n')
    await writeFile(join(small.dir, `${name}-again.jsonl`), lines.map((line) => JSON.stringify({ ...(JSON.parse(line) as object), source: 'again' })).join('\n'))
    return `small:${name}-again.jsonl`
  }
  const again = Object.fromEntries(await Promise.all(['zh', 'en', 'replay', 'retention'].map(async (name) => [name, await fresh(name)] as const)))
  const corpus = (...names: string[]) => ({ ...shared, sources: of(...names).map((s) => ({ ...s, path: again[s.name] ?? s.path })), off: ['classify-topics', 'hold-out', 'score-ppl'] as const })
  const before = await unitsAsked(system.storeDir)
  const pair = await Promise.all([prepare({ ...corpus('zh', 'en'), name: 'left', off: [...corpus().off] }), prepare({ ...corpus('zh', 'replay'), name: 'right', off: [...corpus().off] })])
  await Promise.all(pair.map((p) => p.result()))
  const both = since(before, await unitsAsked(system.storeDir))
  expect(both.get('ingest')).toHaveLength(3)
  expect(both.get('filter')).toHaveLength(3)
  for (const [stage, units] of both) expect(new Set(units).size, `${stage}: a unit was given to two jobs`).toBe(units.length)

  const later = await prepare({ ...corpus('zh', 'en', 'replay'), name: 'all', off: [...corpus().off] })
  await later.result()
  const added = since(before, await unitsAsked(system.storeDir))
  expect([added.get('ingest'), added.get('filter')]).toEqual([both.get('ingest'), both.get('filter')])
  const more = await prepare({ ...corpus('zh', 'en', 'replay', 'retention'), name: 'more', off: [...corpus().off] })
  await more.result()
  const withOneMore = since(before, await unitsAsked(system.storeDir))
  expect([withOneMore.get('ingest')?.length, withOneMore.get('filter')?.length]).toEqual([4, 4])
  await nothingLeft(system.storeDir)
})

/** By stage the fingerprints of all units that jobs were given, as often as they were. */
const unitsAsked = async (storeDir: string): Promise<Map<string, string[]>> => {
  const asked = new Map<string, string[]>()
  for (const { folder } of await jobsIn(storeDir)) {
    const { stage, units } = JSON.parse(await readFile(join(folder, 'request.json'), 'utf8')) as { stage: string; units: { fingerprint: string }[] | null }
    asked.set(stage, [...(asked.get(stage) ?? []), ...(units ?? []).map((u) => u.fingerprint)].sort())
  }
  return asked
}

const since = (before: Map<string, string[]>, after: Map<string, string[]>): Map<string, string[]> =>
  new Map([...after].map(([stage, units]) => {
    const left = [...(before.get(stage) ?? [])]
    return [stage, units.filter((u) => {
      const at = left.indexOf(u)
      if (at >= 0) left.splice(at, 1)
      return at < 0
    })]
  }))
