import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { CptRunInput } from '@cpt/contracts/cpt-run'
import type { Problem } from '@cpt/contracts/parse-input'
import type { ApplicationFailure } from '@temporalio/common'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import { unresolvableInputs } from '../../test/fixtures/bad-inputs.ts'
import { openStore } from './artifact-store/open-store.ts'
import { loadConfig } from './config.ts'
import { commitCorpus } from './corpora.ts'
import { sha256 } from './identity.ts'
import { mergeDeep, resolveInput } from './resolve-input.ts'
import { resolveSweep } from './resolve-sweep.ts'

const shipped = fileURLToPath(new URL('../../samples', import.meta.url))
const preset = async () => parse(await readFile(join(shipped, 'quickstart.yaml'), 'utf8')) as Record<string, unknown>

const resolving = (env: Record<string, string>) => {
  const config = loadConfig(env)
  return resolveInput({ config, store: openStore(config) })
}

const problemsOf = async (promise: Promise<unknown>): Promise<Problem[]> => {
  const failure: unknown = await promise.then(() => null, (e: unknown) => e)
  expect(failure).toMatchObject({ type: 'InvalidInput', nonRetryable: true })
  return (failure as ApplicationFailure).details as Problem[]
}

describe('the shipped quickstart', () => {
  const resolve = resolving({})

  test('resolves with every default, digest and the number of parameters', async () => {
    const run = await resolve({})
    expect(run.spec.name).toBe('quickstart')
    expect(run.spec.placement.train).toMatchObject({ threads: 2, runner: 'local', noProgressSeconds: 900 })
    expect(run.spec.corpus.filter.minWords).toBe(20)
    expect(run.sources.map((s) => s.name)).toEqual(['zh', 'en', 'code', 'replay', 'retention', 'dirty'])
    for (const ref of [run.base, run.tokenizer, ...run.sources.map((s) => s.file), ...run.benchmarks.map((b) => b.items)]) {
      expect(ref.sha256).toMatch(/^[0-9a-f]{64}$/)
      expect(ref.bytes).toBeGreaterThan(0)
    }
    expect(run.base.uri).toBe('samples:base/')
    // the parameters of a Llama, from its configuration: embedding, per layer attention and gated MLP with two norms, last norm, head unless tied
    const c = JSON.parse(await readFile(join(shipped, 'base/config.json'), 'utf8')) as Record<string, number> & { tie_word_embeddings: boolean }
    const [h, layers, vocabulary, inner, heads, kvHeads] = [c['hidden_size']!, c['num_hidden_layers']!, c['vocab_size']!, c['intermediate_size']!, c['num_attention_heads']!, c['num_key_value_heads']!]
    const attention = 2 * h * h + 2 * h * (h / heads) * kvHeads
    expect(run.parameters).toBe(vocabulary * h * (c.tie_word_embeddings ? 1 : 2) + layers * (attention + 3 * h * inner + 2 * h) + h)
  })

  test('changes by what is given and by nothing else', async () => {
    const [plain, given] = [await resolve({}), await resolve({ preset: 'quickstart', training: { peakLr: 3e-4 }, placement: { train: { threads: 1 } }, reweight: { alpha: 0.2 } })]
    expect(given.spec).toEqual({ ...plain.spec, training: { ...plain.spec.training, peakLr: 3e-4 }, placement: { ...plain.spec.placement, train: { ...plain.spec.placement.train, threads: 1 } }, reweight: { ...plain.spec.reweight, alpha: 0.2 } })
  })

  test('guards its training as is usual, by what an input says of it, and not at all where that is null', async () => {
    const usual = { windowSteps: 32, spikeZ: 8, minRise: 0.5, skipSteps: 16, maxAmendments: 3 }
    const guardOf = async (guard?: object | null) => (await resolve(guard === undefined ? {} : { training: { guard } })).spec.training.guard
    expect(await guardOf()).toEqual(usual)
    expect(await guardOf({ maxAmendments: 9 })).toEqual({ ...usual, maxAmendments: 9 })
    expect(await guardOf(null)).toBeNull()
    expect(await problemsOf(guardOf({ spikeZ: 0 }))).toMatchObject([{ path: 'training.guard.spikeZ' }])
  })

  test('finds the encoders that classify by the paths that name them, and none where fastText does it all', async () => {
    expect(await resolve({})).not.toHaveProperty('encoders')
    const encoder = { engine: 'encoder', model: 'samples:base' } as const
    const found = await resolve({ corpus: { topics: { classifier: encoder }, quality: { languages: ['en'], classifier: { engine: 'fasttext', languages: { en: { ...encoder, model: 'samples:target/' } } } } } })
    expect(Object.entries(found.encoders ?? {}).map(([path, ref]) => [path, ref.uri])).toEqual([['samples:base', 'samples:base/'], ['samples:target/', 'samples:target/']])
    expect(found.encoders?.['samples:base']).toEqual(found.base)
  })

  test('is complete: resolving its result again changes nothing', async () => {
    const first = await resolve({})
    expect((await resolve(JSON.parse(JSON.stringify(first.spec)) as CptRunInput)).spec).toEqual(first.spec)
  })

  test.each(unresolvableInputs)('refuses $name by path', async ({ input, paths }) => {
    expect([...new Set((await problemsOf(resolve(input as CptRunInput))).map((p) => p.path))].sort()).toEqual([...paths].sort())
  })

  test('has a seed sample labelled by the model that it names, else by the one of the configuration, and by none at random', async () => {
    const label = { languages: ['zh'], docsPerLanguage: 50 }
    const modelOf = async (env: Record<string, string>, more: object = {}) => (await resolving(env)({ corpus: { topics: { label: { ...label, ...more } } } })).spec.corpus.topics.label
    expect(await modelOf({ CPT_LABEL_MODEL: 'small' })).toEqual({ ...label, model: 'small' })
    expect(await modelOf({ CPT_LABEL_MODEL: 'small' }, { model: 'large' })).toEqual({ ...label, model: 'large' })
    const quality = (await resolving({ CPT_LABEL_MODEL: 'small' })({ corpus: { quality: { languages: ['zh'], label: { docsPerLanguage: 9 } } } })).spec.corpus.quality
    expect(quality).toEqual({ languages: ['zh'], label: { docsPerLanguage: 9, model: 'small' } })
    expect(await problemsOf(modelOf({}))).toMatchObject([{ path: 'corpus.topics.label.model' }])
    expect(await problemsOf(modelOf({ CPT_LABEL_MODEL: 'small' }, { languages: ['fr'] }))).toMatchObject([{ path: 'corpus.topics.label.languages.0' }])
    expect((await resolving({ CPT_LABEL_MODEL: 'small' })({})).spec).toEqual((await resolve({})).spec)
  })

  test('lists all missing files at once', async () => {
    const input: CptRunInput = {
      corpus: { sources: [{ name: 'a', path: 'samples:corpus/a.jsonl' }, { name: 'zh', path: 'samples:corpus/zh.jsonl.zst' }, { name: 'b', path: 'samples:corpus/b.jsonl' }] },
      evaluation: { benchmarks: [{ name: 'x', path: 'samples:bench/x.jsonl', kind: 'mcq', shots: 0 }] },
    }
    const problems = await problemsOf(resolve(input))
    expect(problems.map((p) => p.path).sort()).toEqual(['corpus.sources.0.path', 'corpus.sources.2.path', 'evaluation.benchmarks.0.path'])
    expect(problems[0]?.got).toContain('no such file or folder')
  })
})

describe('a preset or base model of one’s own', () => {
  let samples = ''
  beforeEach(async () => {
    samples = await mkdtemp(join(tmpdir(), 'cpt-samples-'))
    await mkdir(join(samples, 'corpus'))
    await writeFile(join(samples, 'corpus/zh.jsonl'), '{}\n')
    await cp(join(shipped, 'base'), join(samples, 'base'), { recursive: true })
  })
  afterEach(() => rm(samples, { recursive: true }))

  const small: CptRunInput = { corpus: { sources: [{ name: 'zh', path: 'samples:corpus/zh.jsonl' }] }, evaluation: { benchmarks: [] } }
  const resolve = (input: CptRunInput = small) => resolving({ CPT_ROOTS: JSON.stringify({ samples }) })(input)
  const writePreset = async (over: Record<string, unknown>) => { await writeFile(join(samples, 'quickstart.yaml'), stringify({ ...(await preset()), ...over })) }

  test('a preset with a key that nobody knows is refused by that key', async () => {
    await writePreset({ peakLR: 1 })
    expect(await problemsOf(resolve())).toEqual([{ path: 'peakLR', expected: 'no such key', got: '1' }])
  })
  test('a preset that is missing or no YAML ends the run with the file’s name', async () => {
    expect((await problemsOf(resolve()))[0]).toMatchObject({ path: 'preset', expected: expect.stringContaining('quickstart.yaml') })
    await writeFile(join(samples, 'quickstart.yaml'), 'a: [')
    expect((await problemsOf(resolve()))[0]).toMatchObject({ path: 'preset' })
  })
  test('what was resolved holds no gap that a preset edited later could fill', async () => {
    await writePreset({})
    const before = await resolve()
    await writePreset({ seed: 7, training: { ...(await preset())['training'] as object, peakLr: 0.5 }, reweight: { ...(await preset())['reweight'] as object, alpha: 0.9 }, plan: [] })
    // the workflow carries the resolved run on through its history; asked again with it, nothing of the new preset gets in
    expect((await resolve(JSON.parse(JSON.stringify(before.spec)) as CptRunInput)).spec).toEqual(before.spec)
  })
  test('a file that was changed is another input, by its digest', async () => {
    await writePreset({})
    const before = await resolve()
    await writeFile(join(samples, 'corpus/zh.jsonl'), '{"text": "other"}\n')
    const after = await resolve()
    expect(after.spec).toEqual(before.spec)
    expect(after.sources[0]?.file.sha256).not.toBe(before.sources[0]?.file.sha256)
    expect({ ...after, sources: [] }).toEqual({ ...before, sources: [] })
  })
  test('a folder is the files in it, sorted and named by their paths; of plain text it is one reference', async () => {
    await writePreset({})
    for (const name of ['web/2026/b.jsonl.zst', 'web/2026/a.jsonl', 'web/c.json.gz', 'web/_SUCCESS', 'web/.hidden', 'texts/a.txt', 'texts/more/b.txt', 'rows/0.parquet']) {
      await mkdir(dirname(join(samples, name)), { recursive: true })
      await writeFile(join(samples, name), name)
    }
    const given = { corpus: { sources: [{ name: 'web', path: 'samples:web' }, { name: 'texts', path: 'samples:texts', format: 'text' as const }, { name: 'rows', path: 'samples:rows/', format: 'parquet' as const }, ...small.corpus!.sources!] }, evaluation: { benchmarks: [] } }
    const { sources } = await resolve(given)
    expect(sources.map((s) => [s.name, s.part, s.file.uri])).toEqual([
      ['web', '2026/a.jsonl', 'samples:web/2026/a.jsonl'], ['web', '2026/b.jsonl.zst', 'samples:web/2026/b.jsonl.zst'], ['web', 'c.json.gz', 'samples:web/c.json.gz'],
      ['texts', undefined, 'samples:texts/'], ['rows', '0.parquet', 'samples:rows/0.parquet'], ['zh', undefined, 'samples:corpus/zh.jsonl'],
    ])
    expect(sources[3]?.file.bytes).toBe('texts/a.txt'.length + 'texts/more/b.txt'.length)
    await writeFile(join(samples, 'web/notes.txt'), 'is not read in silence')
    await mkdir(join(samples, 'nothing'))
    const odd = { ...given, corpus: { sources: [...given.corpus.sources, { name: 'nothing', path: 'samples:nothing' }] } }
    expect((await problemsOf(resolve(odd))).sort((a, b) => (a.path < b.path ? -1 : 1))).toMatchObject([
      { path: 'corpus.sources.0.path', expected: 'a jsonl file, or a folder of them', got: expect.stringContaining('notes.txt is no jsonl file by its name') },
      { path: 'corpus.sources.4.path', got: expect.stringContaining('an empty folder') },
    ])
  })
  test('tokens are a pair of files, found beside each other, of the tokenizer that their source states', async () => {
    await writePreset({})
    for (const name of ['tokens/a.bin', 'tokens/a.idx', 'tokens/more/b.bin', 'tokens/more/b.idx', 'half/c.bin']) {
      await mkdir(dirname(join(samples, name)), { recursive: true })
      await writeFile(join(samples, name), name)
    }
    const tokenizer = (await resolve()).tokenizer.sha256
    const pile = { name: 'pile', path: 'samples:tokens', format: 'megatron' as const, language: 'en', kind: 'web' as const, tokenizer }
    const one = { ...pile, name: 'one', path: 'samples:tokens/a.bin' }
    const withTokens = (...sources: NonNullable<NonNullable<CptRunInput['corpus']>['sources']>): CptRunInput => ({ corpus: { sources: [...small.corpus!.sources!, ...sources] }, evaluation: { benchmarks: [] } })
    const { sources } = await resolve(withTokens(pile, one))
    expect(sources.slice(1).map((s) => [s.name, s.part, s.file.uri, s.index?.uri])).toEqual([
      ['pile', 'a.bin', 'samples:tokens/a.bin', 'samples:tokens/a.idx'], ['pile', 'more/b.bin', 'samples:tokens/more/b.bin', 'samples:tokens/more/b.idx'], ['one', undefined, 'samples:tokens/a.bin', 'samples:tokens/a.idx'],
    ])
    expect(await problemsOf(resolve(withTokens({ ...pile, tokenizer: '0'.repeat(64) }, { ...one, path: 'samples:tokens/a' }, { ...one, name: 'half', path: 'samples:half' })))).toMatchObject([
      { path: 'corpus.sources.2.path', expected: expect.stringContaining('.bin file of a pair') as unknown },
      { path: 'corpus.sources.3.path', got: expect.stringContaining('samples:half/c.idx: no such file') as unknown },
      { path: 'corpus.sources.1.tokenizer', expected: expect.stringContaining(tokenizer) as unknown, got: '0'.repeat(64) },
    ])
    const bare = { name: 'bare', path: 'samples:tokens', format: 'megatron' as const }
    expect((await problemsOf(resolve(withTokens(bare, { name: 'text', path: 'samples:x.jsonl', tokenizer })))).map((p) => p.path)).toEqual(['corpus.sources.1.tokenizer', 'corpus.sources.1.language', 'corpus.sources.1.kind', 'corpus.sources.2.tokenizer'])
    expect(await problemsOf(resolve({ ...withTokens(), corpus: { sources: [pile] } }))).toMatchObject([{ path: 'corpus.sources', expected: expect.stringContaining('a source of text beside the tokens') as unknown }])
  })
  test('an n-gram model is one file over the pieces of the base, and any other scorer a folder with its tokenizer', async () => {
    await writePreset({})
    await writeFile(join(samples, 'ngrams.arpa'), '\\data\\')
    await cp(join(samples, 'base'), join(samples, 'other'), { recursive: true })
    await writeFile(join(samples, 'other/tokenizer.json'), '{}')
    const scoring = (given: NonNullable<NonNullable<CptRunInput['corpus']>['scoring']>): CptRunInput => ({ ...small, corpus: { ...small.corpus, scoring: given } })
    const kenlm = await resolve(scoring({ engine: 'kenlm', model: 'samples:ngrams.arpa' }))
    expect(kenlm.scorer).toEqual({ uri: 'samples:ngrams.arpa', sha256: sha256('\\data\\'), bytes: 6 })
    expect(kenlm.scorerParameters).toBeUndefined()
    const smaller = await resolve(scoring({ model: 'samples:base' }))
    expect(smaller.scorer?.uri).toBe('samples:base/')
    expect(smaller.scorerParameters).toBe(smaller.parameters)

    expect(await problemsOf(resolve(scoring({ engine: 'kenlm' })))).toMatchObject([{ path: 'corpus.scoring.model', expected: expect.stringContaining('.arpa or binary file of a KenLM model') as unknown, got: 'nothing' }])
    expect(await problemsOf(resolve(scoring({ engine: 'kenlm', model: 'samples:missing.arpa' })))).toMatchObject([{ path: 'corpus.scoring.model', got: expect.stringContaining('samples:missing.arpa: no such file') as unknown }])
    expect(await problemsOf(resolve(scoring({ engine: 'kenlm', model: 'samples:base' })))).toMatchObject([{ path: 'corpus.scoring.model', expected: 'one file: the .arpa or binary file of a KenLM model', got: 'samples:base, a folder' }])
    expect(await problemsOf(resolve(scoring({ model: 'samples:ngrams.arpa' })))).toMatchObject([{ path: 'corpus.scoring.model', got: expect.stringContaining('samples:ngrams.arpa/tokenizer.json: no such file') as unknown }])
    expect(await problemsOf(resolve(scoring({ model: 'samples:other' })))).toMatchObject([{ path: 'corpus.scoring.model', expected: expect.stringContaining("a model with the base's tokenizer") as unknown, got: `one with sha256 ${sha256('{}')}` }])
  })
  test('an alias stands for the newest committed corpus, as its files were then, in a run and in a sweep', async () => {
    await writePreset({})
    await cp(join(shipped, 'sweep.yaml'), join(samples, 'sweep.yaml'))
    const config = loadConfig({ CPT_ROOTS: JSON.stringify({ samples }), CPT_STATE: join(samples, 'state') })
    const deps = { config, store: openStore(config) }
    const committed = await resolveInput(deps)({ ...small, corpus: { ...small.corpus, name: 'web', filter: { minWords: 3 } } })
    const { base: ref, sources, spec } = committed
    await commitCorpus(deps)({ name: 'web', corpus: spec.corpus, sources, prepared: { pool: { corpus: ref, tokens: ref, index: ref, topics: ref, scores: ref }, counts: [], validation: ref }, committedBy: { workflowId: 'w', firstRunId: 'r' } })
    await writeFile(join(samples, 'corpus/zh.jsonl'), '{"text": "other"}\n')

    const alias = { corpus: { newest: 'web' }, evaluation: { benchmarks: [] } }
    const cited = await resolveInput(deps)({ ...alias, seed: 3 })
    // who reads a corpus commits none, so the name is gone
    const { name: _, ...settings } = spec.corpus
    expect(cited).toEqual({ ...committed, spec: { ...spec, seed: 3, corpus: settings }, corpus: { name: 'web', number: 1 } })
    const { run } = await resolveSweep(deps)({ run: alias })
    expect(run).toMatchObject({ spec: { corpus: settings }, sources, corpus: { name: 'web', number: 1 } })

    const refusal = { expected: 'the name of a committed corpus (there are: web; a run, sweep or corpusPreparation with corpus.name commits one)', got: '"wbe"' }
    expect(await problemsOf(resolveInput(deps)({ corpus: { newest: 'wbe' } }))).toEqual([{ path: 'corpus.newest', ...refusal }])
    expect(await problemsOf(resolveSweep(deps)({ run: { corpus: { newest: 'wbe' } } }))).toEqual([{ path: 'run.corpus.newest', ...refusal }])
  })
  test('weights without a readable header are refused', async () => {
    await writePreset({})
    for (const broken of [Buffer.alloc(0), Buffer.from([9, 0, 0, 0, 0, 0, 0, 0]), Buffer.from([255, 255, 255, 255, 255, 255, 255, 127]), Buffer.from('not safetensors at all')]) {
      await writeFile(join(samples, 'base/model.safetensors'), broken)
      expect((await problemsOf(resolve()))[0]).toMatchObject({ path: 'base.model', expected: 'safetensors weights' })
    }
  })
  const shard = async (name: string, entries: object) => {
    const header = Buffer.from(JSON.stringify(entries))
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(header.length))
    await writeFile(join(samples, 'base', name), Buffer.concat([length, header]))
  }
  test('parameters are counted from the header alone, whatever follows it', async () => {
    await writePreset({})
    await shard('model.safetensors', { __metadata__: { format: 'pt' }, a: { dtype: 'F32', shape: [3, 5], data_offsets: [0, 60] }, b: { dtype: 'F32', shape: [], data_offsets: [60, 64] } })
    expect((await resolve()).parameters).toBe(16)
  })
  test('parameters of sharded weights are those of all files of the index, and a file that is missing or elsewhere is refused', async () => {
    await writePreset({})
    await rm(join(samples, 'base/model.safetensors'))
    const files = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'] as const
    const index = (second: string) => writeFile(join(samples, 'base/model.safetensors.index.json'), JSON.stringify({ metadata: { total_size: 1 }, weight_map: { a: files[0], b: files[0], c: second } }))
    await index(files[1])
    await shard(files[0], { a: { dtype: 'BF16', shape: [3, 5], data_offsets: [0, 30] }, b: { dtype: 'BF16', shape: [2], data_offsets: [30, 34] } })
    expect((await problemsOf(resolve()))[0]).toMatchObject({ path: 'base.model', expected: 'safetensors weights' })
    await shard(files[1], { c: { dtype: 'BF16', shape: [100, 10], data_offsets: [0, 2000] } })
    expect((await resolve()).parameters).toBe(1017)
    await index('../base/model-00002-of-00002.safetensors')
    expect((await problemsOf(resolve()))[0]).toMatchObject({ path: 'base.model', expected: 'safetensors weights' })
  })
})

describe('merging', () => {
  test.each([
    ['objects are merged key by key', { a: { b: 1, c: 2 } }, { a: { c: 3 } }, { a: { b: 1, c: 3 } }],
    ['lists are replaced', { a: [1, 2] }, { a: [3] }, { a: [3] }],
    ['ratios are replaced whole', { mixture: { languages: { zh: 0.2, en: 0.8 } } }, { mixture: { languages: { de: 1 } } }, { mixture: { languages: { de: 1 } } }],
    ['an alias replaces what it stands for', { corpus: { sources: [1], filter: {} } }, { corpus: { newest: 'web' } }, { corpus: { newest: 'web' } }],
    ['and is replaced whole', { corpus: { newest: 'web' } }, { corpus: { sources: [1] } }, { corpus: { sources: [1] } }],
    ['what is undefined changes nothing', { a: 1 }, { a: undefined }, { a: 1 }],
    ['null is a value', { a: 1 }, { a: null }, { a: null }],
    ['inherited names are names like any other', {}, { constructor: { a: 1 } }, { constructor: { a: 1 } }],
  ])('%s', (_, base, over, expected) => {
    expect(mergeDeep(base, over)).toEqual(expected)
  })
  test('a prototype key changes no prototype', () => {
    const merged = mergeDeep({ a: {} }, JSON.parse('{"__proto__": {"x": 1}, "a": {"__proto__": {"x": 1}}}')) as { x?: number; a: { x?: number } }
    expect([merged.x, merged.a.x, ({} as { x?: number }).x]).toEqual([undefined, undefined, undefined])
  })
})
