import { describe, expect, test } from 'vitest'
import { CorpusSpec, DataStage, PlanStage } from './cpt-run.ts'
import { needsOf } from './stages-off.ts'

const corpus = (off?: DataStage[]) => CorpusSpec.parse({
  sources: [{ name: 'en', path: 'samples:corpus/en.jsonl.zst' }], ...(off === undefined ? {} : { off }), maxQuarantineRatio: 0.01, filter: {}, dedup: {}, decontaminate: {},
  topics: { kinds: ['web'], minProbability: 0.3, taxonomies: {} }, holdOut: {}, scoring: { windowTokens: 256, maxTokensPerDoc: 256, minTokens: 20 },
})
const stage = (over: Partial<PlanStage> = {}) => PlanStage.parse({ name: 'only', rounds: 1, tokens: 8192, order: 'random', mixture: { languages: { en: 1 } }, ...over })

describe('a run whose input leaves data stages out', () => {
  test('goes without filter, dedup, decontaminate, topics and perplexities where nothing asks for them', () => {
    expect(needsOf({ corpus: corpus(), plan: [stage({ order: 'perplexity', reweight: true })] })).toEqual([])
    expect(needsOf({ corpus: corpus(['filter', 'dedup', 'decontaminate', 'classify-topics', 'score-ppl']), plan: [stage()] })).toEqual([])
  })

  test('has no order by perplexity without score-ppl, and no reweighting without topics', () => {
    const plan = [stage(), stage({ name: 'second', order: 'perplexity' }), stage({ name: 'third', reweight: true })]
    expect(needsOf({ corpus: corpus(['score-ppl', 'classify-topics']), plan })).toMatchObject([
      { path: 'plan.1.order', expected: expect.stringContaining('random') as unknown, got: '"perplexity"' },
      { path: 'plan.2.reweight', expected: expect.stringContaining('false') as unknown, got: 'true' },
    ])
    expect(needsOf({ corpus: corpus(['score-ppl']), plan: [stage({ reweight: true })] })).toEqual([])
  })

  test('does not go without its validation sets, and is told where it named them', () => {
    expect(needsOf({ corpus: corpus(['filter', 'hold-out']), plan: [stage()] })).toMatchObject([{ path: 'corpus.off.1', got: '"hold-out"' }])
    expect(needsOf({ corpus: corpus(['hold-out']), plan: [stage()] }, true)).toMatchObject([{ path: 'corpus.newest', got: 'one prepared without' }])
  })

  test('names a stage that there is', () => {
    expect(DataStage.safeParse('tokenize').success).toBe(false)
  })
})
