import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CommitRecord } from '@cpt/contracts/artifact'
import { evaluatePerplexity } from '@cpt/contracts/evaluate-perplexity'
import { train } from '@cpt/contracts/train'
import { failureOf, lineOf, parkOf, progressOf, resolve, resultOf, startRun } from '../harness/runs.ts'
import { briefRun, globalBatchTokens, makeSmallCorpus } from '../harness/small-run.ts'
import { commitsOf, nothingLeft } from '../harness/store.ts'
import { startSystem, type System } from '../harness/system.ts'

let corpus: Awaited<ReturnType<typeof makeSmallCorpus>>
let system: System
beforeAll(async () => {
  corpus = await makeSmallCorpus()
  system = await startSystem({ roots: { small: corpus.dir } })
})
afterAll(async () => {
  await system.stop()
  await corpus.remove()
})

const steps = 6
/** The rate rises from batch to batch until it is far too high: the model is at its best long before the end. */
const rising = {
  ...briefRun().training, guard: null, validateEverySteps: 1, warmupTokens: 2 * steps * globalBatchTokens, decayTokens: 0, peakLr: 0.1, initialLr: 1e-4, optimizerBetweenRounds: 'keep' as const,
}
const twoRounds = [{ name: 'only', rounds: 2, tokens: 2 * steps * globalBatchTokens, order: 'random' as const, mixture: { languages: { zh: 0.4, en: 0.6 } } }]

const shaOf = (record: CommitRecord, key: string): unknown => (record.request as Record<string, { sha256?: string }>)[key]?.sha256

test('the best step of the last round is what is judged and exported; the round before it hands on where it ended', async () => {
  const run = await startRun(system, 'best', briefRun({ name: 'best', plan: twoRounds, training: { ...rising, take: 'best' }, gate: { retentionToleranceNats: 50, minGainNats: 50, benchmarkMargin: 1, z: 0 } }))
  // nothing so short teaches 50 nats: the gate asks, and is told to publish
  await parkOf(run, 'gate', 1, 600)
  await resolve(run, { stage: 'gate', park: 1, action: 'skip', reason: 'as expected' })
  const result = await resultOf(run, 600)
  const progress = await progressOf(run)
  const records = await commitsOf(system.storeDir)
  const phases = records.filter((r) => r.stage === train.name)
  const first = phases.find((r) => (r.request as { start: { kind: string } }).start.kind === 'model')!
  const last = phases.find((r) => r !== first)!
  const [ofFirst, ofLast] = [train.result.parse(first.result), train.result.parse(last.result)]
  expect(last.request).toMatchObject({ start: { kind: 'checkpoint', checkpoint: { sha256: ofFirst.checkpoint.sha256 } }, validateEverySteps: 1 })
  const best = ofLast.best!
  expect(best.step).toBeLessThan(steps)
  expect(best.model.sha256).not.toBe(ofLast.model.sha256)

  expect(lineOf(progress, 'only/round-2/best-perplexity')).toMatchObject({ state: 'done', note: `the best model, of step ${best.step}: ${best.nllPerToken.toFixed(3)} nats per token` })
  expect(lineOf(progress, 'only/round-1/best-perplexity')).toBeUndefined()
  const measured = records.filter((r) => r.stage === evaluatePerplexity.name && shaOf(r, 'model') === best.model.sha256)
  expect(measured).toHaveLength(1)
  const { strata } = evaluatePerplexity.result.parse(measured[0]!.result).measurement
  const [nll, tokens] = strata.reduce(([n, t], s) => [n + s.nllPerToken * s.tokens, t + s.tokens], [0, 0])
  expect(nll / tokens).toBeCloseTo(best.nllPerToken, 6)
  expect(shaOf(records.find((r) => r.stage === 'export-model')!, 'model')).toBe(best.model.sha256)

  const report = await readFile(result.report, 'utf8')
  expect(report).toContain('only 2, best')
  await nothingLeft(system.storeDir)
})

test('the best step is not to be had where nothing is validated on the way', async () => {
  const refused = await failureOf(await startRun(system, 'no-best', briefRun({ training: { ...briefRun().training, take: 'best' } })))
  expect(refused.problems.map((p) => p.path)).toEqual(['training.take'])
})
