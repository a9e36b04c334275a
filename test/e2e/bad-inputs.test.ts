import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { badInputs, type BadInput } from '../fixtures/bad-inputs.ts'
import { failureOf, lineOf, progressOf, scheduledActivities, startRun } from '../harness/runs.ts'
import { startSystem, type System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

let system: System
beforeAll(async () => {
  system = await startSystem()
})
afterAll(() => system.stop())

/** Starts the run, expects it to be refused for exactly these paths, and returns the activities that were scheduled. */
const refusedFor = async ({ input, paths }: BadInput): Promise<string[]> => {
  const run = await startRun(system, 'bad', input)
  const failure = await failureOf(run)
  const { status, startTime, closeTime } = await run.describe()
  expect(failure.type).toBe('InvalidInput')
  expect([...new Set(failure.problems.map((p) => p.path))].sort()).toEqual([...new Set(paths)].sort())
  for (const path of paths) expect(failure.message).toContain(`${path}: expected`)
  expect(status.name).toBe('FAILED')
  expect(((closeTime?.getTime() ?? Infinity) - startTime.getTime()) / 1000).toBeLessThan(8)
  return await scheduledActivities(run)
}

describe('a wrong input ends the run at once with every problem by path, and no work is begun', () => {
  test('there are at least thirty kinds of wrong input', () => {
    expect(badInputs.length).toBeGreaterThanOrEqual(30)
  })

  test.each(badInputs.map((bad) => [bad.name, bad] as const))('%s', async (_name, bad) => {
    expect(await refusedFor(bad)).toEqual([])
  })
})

const goodSource = { name: 'zh', path: 'samples:corpus/zh.jsonl.zst' }
/** What no schema can see: the disk, and how the input fits the preset under it. */
const foundByResolving: BadInput[] = [
  { name: 'a source that is not there', input: { corpus: { sources: [goodSource, { name: 'gone', path: 'samples:corpus/gone.jsonl' }] } }, paths: ['corpus.sources.1.path'] },
  { name: 'a root that the worker does not know', input: { corpus: { sources: [{ ...goodSource, path: 'elsewhere:zh.jsonl' }] } }, paths: ['corpus.sources.0.path'] },
  { name: 'a base model that is not there', input: { base: { model: 'samples:bass/' } }, paths: ['base.model'] },
  { name: 'a benchmark that is not there', input: { evaluation: { benchmarks: [{ name: 'gone', path: 'samples:bench/gone.jsonl', kind: 'mcq', shots: 0 }] } }, paths: ['evaluation.benchmarks.0.path'] },
  { name: 'a global batch that is no multiple of the preset’s sequences', input: { training: { globalBatchTokens: 1000 } }, paths: ['training.globalBatchTokens'] },
  { name: 'fewer tokens than the preset’s batch', input: { plan: [{ name: 'only', rounds: 2, tokens: 9000, order: 'random', mixture: { languages: { zh: 1 } } }] }, paths: ['plan.0.tokens'] },
  { name: 'a share of synthetic text, and no synthetic text', input: { synthesis: { numDocs: 0 } }, paths: ['synthesis.numDocs'] },
]

describe('what only the disk or the preset shows is listed just so, and the work itself is not begun', () => {
  test.each(foundByResolving.map((bad) => [bad.name, bad] as const))('%s', async (_name, bad) => {
    expect(await refusedFor(bad)).toEqual(['resolve-input'])
  })
})

describe('an input that leaves everything out runs the quickstart', () => {
  test.each([
    ['an empty object', [{}]],
    ['no argument at all', []],
    ['the preset by name', [{ preset: 'quickstart' }]],
  ] as [string, [unknown?]][])('%s', async (_name, args) => {
    const run = await startRun(system, 'defaults', ...args)
    await until('ingest to begin', async () => lineOf(await progressOf(run), 'ingest') ?? null)
    await run.cancel()
    await expect(run.result()).rejects.toThrow('cancelled')
  })
})
