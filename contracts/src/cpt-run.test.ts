import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { badInputs } from '../../test/fixtures/bad-inputs.ts'
import { CorpusPreparationInput, CptRunInput, CptRunSpec, encoderOf, ResolveFailure } from './cpt-run.ts'
import { checkInput, type Problem } from './parse-input.ts'

const preset = parse(readFileSync(new URL('../../samples/quickstart.yaml', import.meta.url), 'utf8')) as Record<string, unknown>

test('the quickstart preset is a complete run', () => {
  expect(checkInput(CptRunSpec, preset).problems).toBeNull()
})

test('a complete run is its own parse, so that what is recorded stays what it was', () => {
  const spec = CptRunSpec.parse(preset)
  expect(CptRunSpec.parse(JSON.parse(JSON.stringify(spec)))).toEqual(spec)
})

test('a schedule longer than the plan is found at the door', () => {
  const training = preset['training'] as Record<string, unknown>
  const problems = (over: Record<string, unknown>) => checkInput(CptRunSpec, { ...preset, training: { ...training, ...over } }).problems?.map((p) => p.path)
  expect(problems({ decayTokens: 10_000_000 })).toEqual(['training.decayTokens'])
  expect(problems({ schedule: 'cosine', warmupTokens: 10_000_000 })).toEqual(['training.warmupTokens'])
  expect(problems({ schedule: 'constant', warmupTokens: 10_000_000 })).toBeUndefined()
})

test('the best step can be taken only where steps are validated', () => {
  const training = preset['training'] as Record<string, unknown>
  const problems = (over: Record<string, unknown>) => checkInput(CptRunSpec, { ...preset, training: { ...training, ...over } }).problems?.map((p) => p.path)
  expect(problems({ take: 'best' })).toEqual(['training.take'])
  expect(problems({ take: 'best', validateEverySteps: 20 })).toBeUndefined()
  expect(problems({ take: 'last' })).toBeUndefined()
  expect(problems({ validateEverySteps: 0 })).toEqual(['training.validateEverySteps'])
})

test('an engine that there is not is refused', () => {
  const training = preset['training'] as Record<string, unknown>
  const problems = (engine: string) => checkInput(CptRunSpec, { ...preset, training: { ...training, engine } }).problems?.map((p) => p.path)
  expect(problems('fsdp2')).toBeUndefined()
  expect(problems('torchtitan')).toEqual(['training.engine'])
})

test('a classifier is the same for all languages, but for those that have one of their own', () => {
  const given = { engine: 'encoder', model: 'samples:bert', epochs: 3, languages: { zh: { engine: 'fasttext' }, fr: { engine: 'encoder', model: 'samples:camembert' } } } as const
  expect(encoderOf(given, 'en')).toEqual({ engine: 'encoder', model: 'samples:bert', epochs: 3 })
  expect(encoderOf(given, 'fr')).toEqual({ engine: 'encoder', model: 'samples:camembert' })
  expect(encoderOf(given, 'zh')).toBeNull()
  expect(encoderOf(undefined, 'en')).toBeNull()
})

test('a classifier says what an encoder needs, and nothing that has no effect', () => {
  const corpus = preset['corpus'] as { topics: object }
  const problems = (classifier: object, over: object = {}) => checkInput(CptRunSpec, { ...preset, corpus: { ...corpus, ...over, topics: { ...corpus.topics, classifier } } }).problems?.map((p) => p.path)
  const encoder = { engine: 'encoder', model: 'samples:bert' }
  expect(problems({ ...encoder, maxTokens: 128, patience: 2 })).toBeUndefined()
  expect(problems({ engine: 'encoder' })).toEqual(['corpus.topics.classifier.model'])
  expect(problems({ engine: 'fasttext', epochs: 3 })).toEqual(['corpus.topics.classifier.epochs'])
  expect(problems({ ...encoder, model: '/etc' })).toEqual(['corpus.topics.classifier.model'])
  expect(problems({ ...encoder, languages: { en: { engine: 'encoder' } } })).toEqual(['corpus.topics.classifier.languages.en.model'])
  expect(problems({ ...encoder, languages: { fr: { engine: 'fasttext' } } })).toEqual(['corpus.topics.classifier.languages.fr'])
  const quality = { languages: ['en'], classifier: { ...encoder, languages: { zh: { engine: 'fasttext' } } } }
  expect(problems(encoder, { quality })).toEqual(['corpus.quality.classifier.languages.zh'])
})

test('a whole preset is also a valid input', () => {
  expect(checkInput(CptRunInput, preset).problems).toBeNull()
})

test.each([[{}], [{ preset: 'quickstart' }]])('%j is a whole input', (input) => {
  expect(checkInput(CptRunInput, input)).toEqual({ data: input, problems: null })
})

describe('an input says only what it says: no default overwrites the preset', () => {
  test.each([
    { reweight: { alpha: 0.3 } },
    { placement: { train: { threads: 1 } } },
    { corpus: { filter: { minWords: 5 }, scoring: { windowTokens: 512 } } },
    { training: { optimizer: { beta2: 0.99 } } },
    { corpus: { topics: { minProbability: 0.5 } } },
    { training: { guard: { maxAmendments: 9 } } },
    { training: { guard: null } },
  ])('%j', (input) => {
    expect(CptRunInput.parse(input)).toEqual(input)
  })
})

test('a placement patch changes what it names and nothing else', () => {
  const decision = { stage: 'train', park: 1, action: 'retry', patch: { placement: { batchTokens: 4096 } } } as const
  expect(ResolveFailure.parse(decision).patch).toEqual({ placement: { batchTokens: 4096 } })
})

test('taxonomies are ours or the input’s own, null takes one away, and an unknown one is found at the door', () => {
  const corpus = preset['corpus'] as { topics: Record<string, unknown> }
  const problems = (topics: Record<string, unknown>) => pathsOf(checkInput(CptRunSpec, { ...preset, corpus: { ...corpus, topics: { ...corpus.topics, ...topics } } }).problems)
  expect(problems({ taxonomies: { en: 'syne-en/1', zh: null } })).toEqual([])
  expect(problems({ taxonomies: { en: 'news/1' } })).toEqual(['corpus.topics.taxonomies.en'])
  expect(problems({ taxonomies: { en: 'news/1' }, custom: { 'news/1': ['Sport', 'Politics', 'Others'] } })).toEqual([])
  expect(problems({ custom: { 'news/1': ['Sport', 'Politics'] } })).toEqual(['corpus.topics.custom.news/1'])
  expect(problems({ custom: { 'news/1': ['Sport', 'a_b', 'source:x', 'Others'] } })).toEqual(['corpus.topics.custom.news/1.1', 'corpus.topics.custom.news/1.2'])
  expect(problems({ fallback: 'kind' })).toEqual(['corpus.topics.fallback'])
})

test('an alias of a corpus stands by itself, in an input and in no complete run', () => {
  const alias = { corpus: { newest: 'web' } }
  expect(checkInput(CptRunInput, alias)).toEqual({ data: alias, problems: null })
  expect(pathsOf(checkInput(CptRunSpec, { ...preset, ...alias }).problems)).toContain('corpus.newest')
  expect(checkInput(CptRunInput, { corpus: { newest: 'web', filter: {} } }).problems).toEqual([{ path: 'corpus.filter', expected: 'nothing beside newest: the corpus web brings its own', got: '{}' }])
})

test.each<[unknown, string[]]>([
  [{ corpus: { name: 'web' } }, []],
  [{}, ['corpus.name']],
  [{ corpus: { filter: { minWords: 3 } } }, ['corpus.name']],
  [{ corpus: { newest: 'web' } }, ['corpus.newest']],
])('a preparation commits under a name: of %j the problems are %j', (input, paths) => {
  expect(pathsOf(checkInput(CorpusPreparationInput, input).problems)).toEqual(paths)
})

const pathsOf = (problems: Problem[] | null): string[] => (problems ?? []).map((p) => p.path).sort()

describe('a bad input names the path of every problem', () => {
  test.each(badInputs)('$name', ({ input, paths }) => {
    expect(pathsOf(checkInput(CptRunInput, input).problems)).toEqual([...paths].sort())
  })

  test.each([NaN, Infinity, -Infinity])('%d is no learning rate', (peakLr) => {
    expect(checkInput(CptRunInput, { training: { peakLr } }).problems).toEqual([{ path: 'training.peakLr', expected: expect.stringContaining('number'), got: String(peakLr) }])
  })

  test('the table has at least thirty, each under a name of its own', () => {
    expect(new Set(badInputs.map((b) => b.name)).size).toBe(badInputs.length)
    expect(badInputs.length).toBeGreaterThanOrEqual(30)
  })
})
