import { open, readFile, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { ApplicationFailure } from '@temporalio/common'
import type { ArtifactRef } from '@cpt/contracts/artifact'
import type { ResolvedRun } from '@cpt/contracts/activities'
import type { CommittedCorpus } from '@cpt/contracts/committed-corpus'
import { CptRunSpec, isTokens, type CptRunInput } from '@cpt/contracts/cpt-run'
import { checkInput, inputRefusal, type Problem } from '@cpt/contracts/parse-input'
import { Guard } from '@cpt/contracts/train'
import { Name } from '@cpt/contracts/units'
import { parse } from 'yaml'
import { z } from 'zod'
import type { Config } from './config.ts'
import { corpusNames, newestCorpus } from './corpora.ts'
import type { Deps } from './deps.ts'
import { UnknownPath } from './stage-failure.ts'

/**
 * Completes an input: preset, then what was given, then defaults; every file found and its digest taken. The result is
 * recorded in history, so that editing a preset never changes a run under way. Fails with InvalidInput listing all problems.
 */
export const resolveInput =
  (deps: Pick<Deps, 'config' | 'store'>) =>
  async (input: CptRunInput): Promise<ResolvedRun> =>
    await resolveSpec(deps, await overPreset(deps.config, input))

/** What an input gives over its preset, not checked yet. */
export const overPreset = async ({ roots, labelModel }: Pick<Config, 'roots' | 'labelModel'>, { preset = 'quickstart', ...given }: CptRunInput): Promise<unknown> =>
  withLabelModel(mergeDeep(await readPreset(roots, preset), given), labelModel)

/** A sample that a model is to label, without the model's name, is labelled by the one of the configuration. */
const withLabelModel = (merged: unknown, model: string | null): unknown => {
  const corpus = isObject(merged) ? merged['corpus'] : undefined
  if (model === null || !isObject(corpus)) return merged
  return (['topics', 'quality'] as const).reduce<unknown>((run, part) => {
    const of = corpus[part]
    const label = isObject(of) ? of['label'] : undefined
    return !isObject(label) || label['model'] !== undefined ? run : mergeDeep(run, { corpus: { [part]: { label: { model } } } })
  }, merged)
}

/**
 * Checks a complete run and finds its files; an alias of a corpus is replaced by what it stands for now, once and
 * for all. `known` are sources that have been found before: they are not looked at again.
 */
export const resolveSpec = async ({ store }: Pick<Deps, 'store'>, merged: unknown, known?: ResolvedRun['sources']): Promise<ResolvedRun> => {
  const cited = await citedCorpus(store, merged)
  const { data: given, problems: misfits } = checkInput(CptRunSpec, cited === null ? merged : cited.merged)
  if (misfits !== null) throw invalidInput(misfits)
  const spec = guarded(given)

  const problems: Problem[] = []
  const find = async (path: string, uri: string): Promise<ArtifactRef> => {
    try {
      return await store.refTo(uri)
    } catch (e) {
      if (!(e instanceof UnknownPath)) throw e
      problems.push({ path, expected: 'a file or folder that this worker can read', got: e.message })
      return { uri, sha256: '0'.repeat(64), bytes: 0 }
    }
  }
  const findSource = async (source: CptRunSpec['corpus']['sources'][number], i: number): Promise<ResolvedRun['sources']> => {
    const path = `corpus.sources.${i}.path`
    const files = await filesOf(store, source).catch((e: unknown) => {
      if (!(e instanceof UnknownPath)) throw e
      problems.push({ path, expected: `a ${source.format ?? 'jsonl'} file, or a folder of them`, got: e.message })
      return []
    })
    const indexOf = async (file: string) => (isTokens(source) ? { index: await find(path, file.replace(/\.bin$/, '.idx')) } : {})
    if (isTokens(source) && files === null && !source.path.endsWith('.bin')) {
      problems.push({ path, expected: 'the .bin file of a pair, beside which its .idx lies, or a folder of pairs', got: source.path })
      return []
    }
    if (files === null) return [{ name: source.name, file: await find(path, source.path), ...(await indexOf(source.path)) }]
    return await Promise.all(files.map(async (part) => ({ name: source.name, part, file: await find(path, `${folder(source.path)}${part}`), ...(await indexOf(`${folder(source.path)}${part}`)) })))
  }
  const sources = known ?? cited?.corpus.sources ?? (await Promise.all(spec.corpus.sources.map(findSource))).flat()
  if (sources.length > mostFiles) problems.push({ path: 'corpus.sources', expected: `at most ${mostFiles} files in all: join small ones`, got: String(sources.length) })
  const benchmarks = await Promise.all(spec.evaluation.benchmarks.map(async (b, i) => ({ name: b.name, items: await find(`evaluation.benchmarks.${i}.path`, b.path) })))
  const model = folder(spec.base.model)
  const base = await find('base.model', model)
  const tokenizer = spec.base.tokenizer === undefined ? await find('base.model', `${model}tokenizer.json`) : await find('base.tokenizer', spec.base.tokenizer)
  const encoders = await findEncoders(spec, find)
  const { model: own, engine } = spec.corpus.scoring
  if (engine === 'kenlm' && own === undefined) problems.push({ path: 'corpus.scoring.model', expected: 'the .arpa or binary file of a KenLM model over the pieces of the base\'s tokenizer', got: 'nothing' })
  if (engine === 'kenlm' && own !== undefined && (await store.filesUnder(own).catch(() => null)) !== null) problems.push({ path: 'corpus.scoring.model', expected: 'one file: the .arpa or binary file of a KenLM model', got: `${own}, a folder` })
  const scorer = own === undefined ? null : await find('corpus.scoring.model', engine === 'kenlm' ? own : folder(own))
  const itsTokenizer = own === undefined || engine === 'kenlm' ? null : await find('corpus.scoring.model', `${folder(own)}tokenizer.json`)
  spec.corpus.sources.forEach((source, i) => {
    if (isTokens(source) && source.tokenizer !== tokenizer.sha256) problems.push({ path: `corpus.sources.${i}.tokenizer`, expected: `tokens of the base's tokenizer, whose tokenizer.json has sha256 ${tokenizer.sha256}`, got: source.tokenizer ?? '' })
  })
  if (problems.length > 0) throw invalidInput(problems)
  if (itsTokenizer !== null && itsTokenizer.sha256 !== tokenizer.sha256) throw invalidInput([{ path: 'corpus.scoring.model', expected: `a model with the base's tokenizer (sha256 ${tokenizer.sha256})`, got: `one with sha256 ${itsTokenizer.sha256}` }])
  const parameters = await countParameters(store, model)
  if (parameters === null) throw invalidInput([{ path: 'base.model', expected: 'safetensors weights', got: `${model}, of whose safetensors files one is missing or has a header that cannot be read` }])
  const scorerParameters = own === undefined || engine === 'kenlm' ? null : await countParameters(store, folder(own))
  const { name, number } = cited?.corpus ?? {}
  return { spec, sources, benchmarks, base, tokenizer, parameters, ...(encoders === null ? {} : { encoders }), ...(scorer === null ? {} : { scorer, ...(scorerParameters === null ? {} : { scorerParameters }) }), ...(name === undefined || number === undefined ? {} : { corpus: { name, number } }) }
}

/** Training is guarded unless the input says null; here, not in the schema: runs that began without a guard go on without one. */
const guarded = (spec: CptRunSpec): CptRunSpec => (spec.training.guard === undefined ? { ...spec, training: { ...spec.training, guard: Guard.parse({}) } } : spec)

const mostFiles = 1000
type SourceSpec = CptRunSpec['corpus']['sources'][number]
const namesOf = { jsonl: /\.(?:jsonl|ndjson|json)(?:\.gz|\.zst)?$/, parquet: /\.parquet$/, megatron: /\.(?:bin|idx)$/ }

/**
 * The files of a source that is a folder of them, sorted by path; null where one reference names all there is: a single
 * file, or plain text. Hidden files and marks (`_SUCCESS`) are none. Throws UnknownPath for a file of another kind: its
 * documents would be lost in silence.
 */
const filesOf = async (store: Deps['store'], { path, format = 'jsonl' }: { path: string; format?: SourceSpec['format'] }): Promise<string[] | null> => {
  if (format === 'text') return null
  const found = await store.filesUnder(path)
  if (found === null) return null
  const names = found.filter((f) => !/(?:^|\/)[._][^/]*$/.test(f.name))
  const other = names.find((f) => !f.isFile || !namesOf[format].test(f.name))
  if (other !== undefined) throw new UnknownPath(`${path}: ${other.name} is ${other.isFile ? `no ${format} file by its name` : 'no regular file'}`)
  if (names.length === 0) throw new UnknownPath(`${path}: an empty folder`)
  return names.map((f) => f.name).filter((name) => format !== 'megatron' || name.endsWith('.bin')).sort()
}

/** The folders of encoders that classify, by their paths as the input gives them; null where fastText does it all. */
const findEncoders = async ({ corpus: { topics, quality } }: CptRunSpec, find: (path: string, uri: string) => Promise<ArtifactRef>): Promise<Record<string, ArtifactRef> | null> => {
  const given = ([['corpus.topics.classifier', topics.classifier], ['corpus.quality.classifier', quality?.classifier]] as const).flatMap(([path, spec]) => [
    { path: `${path}.model`, model: spec?.model },
    ...Object.entries(spec?.languages ?? {}).map(([language, of]) => ({ path: `${path}.languages.${language}.model`, model: of.model })),
  ])
  const named = new Map(given.flatMap(({ path, model }) => (model === undefined ? [] : [[model, path]])))
  if (named.size === 0) return null
  return Object.fromEntries(await Promise.all([...named].map(async ([model, path]) => [model, await find(path, folder(model))] as const)))
}

const folder = (path: string): string => (path.endsWith('/') ? path : `${path}/`)

const Alias = z.strictObject({ newest: Name })
const isAlias = (value: unknown): boolean => isObject(value) && Object.hasOwn(value, 'newest')

/** The committed corpus that a run names, and the run with its settings; they lose the name, for who reads a corpus commits none. */
const citedCorpus = async (store: Deps['store'], merged: unknown): Promise<{ corpus: CommittedCorpus; merged: unknown } | null> => {
  const alias = isObject(merged) ? Alias.safeParse(merged['corpus']).data : undefined
  if (!isObject(merged) || alias === undefined) return null
  const corpus = await newestCorpus(store, alias.newest)
  if (corpus === null) {
    const names = await corpusNames(store)
    throw invalidInput([{ path: 'corpus.newest', expected: `the name of a committed corpus (there ${names.length === 0 ? 'is none' : `are: ${names.join(', ')}`}; a run, sweep or corpusPreparation with corpus.name commits one)`, got: JSON.stringify(alias.newest) }])
  }
  const { name: _name, ...settings } = corpus.corpus
  return { corpus, merged: { ...merged, corpus: settings } }
}

/** The failure that ends a run at once; each problem is a line of the message and an entry of the details. */
export const invalidInput = (problems: Problem[]): ApplicationFailure =>
  ApplicationFailure.nonRetryable(
    inputRefusal(problems),
    'InvalidInput',
    ...problems,
  )

export const readPreset = async (roots: Readonly<Record<string, string>>, preset: string): Promise<unknown> => {
  const file = join(roots['samples'] ?? '', `${preset}.yaml`)
  try {
    return parse(await readFile(file, 'utf8')) as unknown
  } catch (e) {
    throw invalidInput([{ path: 'preset', expected: `a readable preset at ${file}`, got: e instanceof Error ? e.message.slice(0, 500) : String(e) }])
  }
}

/** Objects are merged key by key, anything else (lists and aliases too) is replaced. */
export const mergeDeep = (base: unknown, over: unknown): unknown => {
  if (over === undefined) return base
  if (!isObject(base) || !isObject(over) || isAlias(base) || isAlias(over)) return over
  const merged: Record<string, unknown> = { ...base }
  for (const [key, value] of Object.entries(over)) {
    if (key === '__proto__') continue
    // ratios belong together: half of one mixture and half of another sum to nothing
    merged[key] = key === 'languages' || key === 'kinds' ? value : mergeDeep(Object.hasOwn(merged, key) ? merged[key] : undefined, value)
  }
  return merged
}

const isObject = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v)

const Header = z.record(z.string(), z.object({ shape: z.array(z.int()).optional() }).loose())

const WeightIndex = z.object({ weight_map: z.record(z.string(), z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$/)) })

/** Parameters of a model folder, from the safetensors headers alone: 0 where the weights lie in other files, null where one is broken. */
const countParameters = async (store: Deps['store'], model: string): Promise<number | null> => {
  const opened = (name: string) => store.localPath({ uri: `${model}${name}` }).then((path) => open(path, 'r')).catch(() => null)
  const single = await opened('model.safetensors')
  if (single !== null) return await parametersIn(single)
  const index = await opened('model.safetensors.index.json')
  if (index === null) return 0
  const shards = WeightIndex.safeParse(jsonIn(await index.readFile().finally(() => index.close())))
  if (!shards.success) return null
  const counts = await Promise.all([...new Set(Object.values(shards.data.weight_map))].map(async (name) => {
    const file = await opened(name)
    return file === null ? null : await parametersIn(file)
  }))
  return counts.reduce<number | null>((sum, n) => (sum === null || n === null ? null : sum + n), 0)
}

const parametersIn = async (file: FileHandle): Promise<number | null> => {
  try {
    const { buffer: head, bytesRead } = await file.read(Buffer.alloc(8), 0, 8, 0)
    const length = Number(head.readBigUInt64LE())
    if (bytesRead < 8 || length > 100_000_000) return null
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, 8)
    const header = Header.safeParse(jsonIn(buffer))
    if (!header.success) return null
    const tensors = Object.values(header.data)
    return tensors.reduce((sum, t) => sum + (t.shape === undefined ? 0 : t.shape.reduce((a, b) => a * b, 1)), 0)
  } finally {
    await file.close()
  }
}

const jsonIn = (bytes: Buffer): unknown => {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    return undefined
  }
}
