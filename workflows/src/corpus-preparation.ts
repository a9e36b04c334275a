import { ApplicationFailure, CancellationScope, proxyActivities } from '@temporalio/workflow'
import type { ControlActivities, ResolvedRun } from '@cpt/contracts/activities'
import type { ArtifactRef } from '@cpt/contracts/artifact'
import type { CorpusPreparationResult, PreparedCorpus } from '@cpt/contracts/committed-corpus'
import type { StratumCount } from '@cpt/contracts/count-strata'
import { CorpusPreparationInput, encoderOf, isTokens, type ClassifierSpec, type CptRunInput, type CptRunSpec, type DataStage } from '@cpt/contracts/cpt-run'
import { Placeholders, type FindPersonalDataResult } from '@cpt/contracts/find-personal-data'
import { FieldMapping } from '@cpt/contracts/ingest'
import { qualityScores, qualityTaxonomy } from '@cpt/contracts/score-quality'
import { topicsOf } from '@cpt/contracts/topics'
import type { z } from 'zod'
import { light } from './activity-options.ts'
import { commitNamed } from './commit-named.ts'
import { mergeCounts } from './merge-counts.ts'
import { parseInput } from './parse.ts'
import { openRun, type RequestOf, type ResultOf, type Run } from './run.ts'
import { withVocabulary } from './with-vocabulary.ts'

/**
 * The data stages of a run by themselves, from raw sources to a corpus that is committed under `corpus.name`, from which
 * runs and sweeps take it as `{"corpus": {"newest": "<name>"}}`. Takes one JSON object, the same as a run (CptRunInput).
 */
export async function corpusPreparation(input?: unknown): Promise<CorpusPreparationResult> {
  const given = parseInput(CorpusPreparationInput, input ?? {}) as CptRunInput
  const run = openRun('corpusPreparation')
  const resolved = await proxyActivities<ControlActivities>({ ...light, activityId: 'resolve-input', summary: 'presets, defaults, files' }).resolveInput(given)
  describe(run, resolved)
  try {
    const prepared = await prepareCorpus(run, await withVocabulary(run, resolved))
    const commit = await commitNamed(run, resolved, prepared)
    if (commit === null) throw new TypeError('a preparation has a name to commit under')
    const [docs, tokens] = (['docs', 'tokens'] as const).map((what) => prepared.counts.reduce((sum, stratum) => sum + stratum[what], 0)) as [number, number]
    run.finish('done', `${commit.name} #${commit.number}${commit.unchanged ? ', as it was committed before' : ''}: ${docs} documents, ${tokens} tokens. Take it with \`{"corpus": {"newest": "${commit.name}"}}\``)
    return { ...commit, docs, tokens }
  } catch (e) {
    await CancellationScope.nonCancellable(() => Promise.resolve(run.finish('failed', 'Ended without a corpus')))
    throw e
  }
}

const describe = (run: Run, { spec, sources, parameters }: ResolvedRun): void => {
  run.describe({
    model: spec.base.model.slice(0, 100), owner: spec.owner, backend: spec.placement.data.runner,
    lines: [`Corpus ${spec.corpus.name ?? ''} from ${sources.length} source${sources.length === 1 ? '' : 's'}, scored by ${spec.base.model.replace(/[^\w:/.-]/g, ' ')} (${parameters} parameters)`],
  })
}

export interface SyntheticCorpus {
  pool: { corpus: ArtifactRef; tokens: ArtifactRef; index: ArtifactRef; topics: null; scores: null }
  counts: StratumCount[]
}

/** From raw sources to token shards with topics and perplexities, and frozen validation sets. */
export const prepareCorpus = async (run: Run, { spec, sources, benchmarks, base, extended = base, tokenizer, scorer = extended, parameters, scorerParameters = parameters, encoders }: ResolvedRun): Promise<PreparedCorpus> => {
  const { data, scoring } = spec.placement
  const { corpus } = await run.stage('ingest', 'ingest', {
    sources: spec.corpus.sources.flatMap((source) => textFilesOf(source, sources)),
    maxQuarantineRatio: spec.corpus.maxQuarantineRatio, shardDocs: spec.corpus.shardDocs, shardBytes: spec.corpus.shardBytes,
  }, { placement: data, note: (r) => `${r.counts.lines} lines = ${r.counts.kept} kept + ${r.counts.quarantined} quarantined` })

  const off = new Set(spec.corpus.off)
  const filtered = off.has('filter') ? leftOut(run, 'filter') : await run.stage('filter', 'filter', { corpus, rules: spec.corpus.filter }, { placement: data, note: kept })
  const filteredOut = dropsOf(filtered)

  const { jaccard, ...signed } = spec.corpus.dedup
  const signatures = off.has('dedup') ? null : await run.stage('dedup-signatures', 'dedupSignatures', { corpus, drops: filteredOut, ...signed }, { placement: data, note: (r) => `of ${r.counts.docs} documents` })
  const deduplicated = signatures === null ? leftOut(run, 'dedup') : await run.stage('dedup', 'dedup', { corpus, drops: filteredOut, signatures: signatures.signatures, ...signed, ...(jaccard === undefined ? {} : { jaccard }) }, { placement: data, note: kept })
  const clean = off.has('decontaminate') ? leftOut(run, 'decontaminate') : await run.stage('decontaminate', 'decontaminate', {
    corpus, drops: dropsOf(filtered, deduplicated), benchmarks: benchmarks.map((b) => ({ name: b.name, items: b.items })), ...spec.corpus.decontaminate,
  }, { placement: data, note: kept })
  const good = await goodEnough(run, { spec, encoders }, corpus, dropsOf(filtered, deduplicated, clean))
  const drops = dropsOf(filtered, deduplicated, clean, good)

  const { placeholders, ...searched } = spec.corpus.personalData ?? {}
  const redaction = spec.corpus.personalData === undefined ? {} : {
    personalData: (await run.stage('find-personal-data', 'findPersonalData', { corpus, drops, ...searched }, { placement: data, note: foundPersonalData })).personalData,
    placeholders: Placeholders.parse(placeholders ?? {}),
  }

  const labels = off.has('classify-topics') ? {} : await labelSample(run, spec, corpus, drops)
  const trained = off.has('classify-topics') ? null : await Promise.all(taxonomiesIn(spec.corpus.topics).map(async ({ language, taxonomy, topics }) => [
    language,
    await run.stage(`train-topic-classifier/${language}`, 'trainTopicClassifier', {
      corpus, drops, ...(spec.corpus.topics.label?.languages.includes(language) === true ? labels : {}), language, taxonomy, topics: [...topics], kinds: spec.corpus.topics.kinds, seed: spec.seed,
      ...fineTuned(spec.corpus.topics.classifier, language, encoders),
    }, { placement: data, note: (r) => `accuracy ${r.accuracy.toFixed(2)} on ${r.numTest} held-out documents` }),
  ] as const))
  const classified = trained === null ? leftOut(run, 'classify-topics') : await run.stage('classify-topics', 'classifyTopics', {
    corpus, drops, classifiers: Object.fromEntries(trained.map(([language, t]) => [language, t.classifier])), kinds: spec.corpus.topics.kinds, minProbability: spec.corpus.topics.minProbability,
    ...(spec.corpus.topics.fallback === undefined ? {} : { fallback: spec.corpus.topics.fallback }),
  }, { placement: data, note: (r) => `${r.counts.classified} documents, ${r.counts.lowConfidence} of low confidence to Others` })
  const topics = classified?.topics ?? null

  const heldOut = off.has('hold-out') ? leftOut(run, 'hold-out') : await run.stage('hold-out', 'holdOut', {
    corpus, drops, ...(topics === null ? {} : { topics }), ...(deduplicated === null ? {} : { duplicates: deduplicated.verdicts }), ...redaction, ...spec.corpus.holdOut, seed: spec.seed,
  }, {
    placement: data, note: (r) => `${r.strata.reduce((sum, s) => sum + s.docs, 0)} documents in ${r.strata.length} sets`,
  })
  const { tokens, index, counts: tokenized } = await run.stage('tokenize', 'tokenize', { corpus, drops: [...drops, ...dropsOf(heldOut)], tokenizer, ...redaction }, { placement: data, note: (r) => `${r.counts.tokens} tokens in ${r.counts.docs} documents` })
  const scored = off.has('score-ppl') ? leftOut(run, 'score-ppl') : await run.stage('score-ppl', 'scorePpl', scoringOf(spec, { tokens, index, scorer, tokenizer }), { placement: scoring, expects: scoringCost(tokenized, spec.corpus.scoring, scorerParameters), note: scoresNote })
  const { strata } = await run.stage('count-strata', 'countStrata', { corpus, topics, index }, { placement: data, note: (r) => `${r.strata.length} strata` })
  await run.optionalStage('count-funnel', 'countFunnel', {
    corpus, ...judgedBy({ 'filter': filtered, 'dedup': deduplicated, 'decontaminate': clean, 'score-quality': good, 'hold-out': heldOut }), index,
  }, { placement: data, note: (r) => `${r.counts.docs} documents by source and language` })

  const pool = { corpus, tokens, index, topics, scores: scored?.scores ?? null }
  const validation = heldOut?.validation ?? null
  if (!spec.corpus.sources.some(isTokens)) return { pool, counts: strata, validation }
  const imported = await importTokens(run, { spec, sources, tokenizer, scorer, scorerParameters })
  return { pool, imported: imported.pool, counts: mergeCounts(strata, imported.counts), validation }
}

/** Token files as a pool of their own: scored for the curriculum, and else taken as they are. */
const importTokens = async (run: Run, { spec, sources, tokenizer, scorer, scorerParameters }: Pick<ResolvedRun, 'spec' | 'sources' | 'tokenizer'> & { scorer: ArtifactRef; scorerParameters: number }): Promise<{ pool: NonNullable<PreparedCorpus['imported']>; counts: StratumCount[] }> => {
  const { data, scoring } = spec.placement
  const { corpus, tokens, index, counts } = await run.stage('import-tokens', 'importTokens', {
    files: spec.corpus.sources.flatMap((source) => tokenFilesOf(source, sources)), tokenizer, shardDocs: spec.corpus.shardDocs, shardBytes: spec.corpus.shardBytes,
  }, { placement: data, note: (r) => `${r.counts.tokens} tokens in ${r.counts.docs} documents${r.counts.empty === 0 ? '' : `, ${r.counts.empty} empty`}` })
  const scored = spec.corpus.off?.includes('score-ppl') === true ? null : await run.stage('score-ppl/imported', 'scorePpl', scoringOf(spec, { tokens, index, scorer, tokenizer }), { placement: scoring, expects: scoringCost(counts, spec.corpus.scoring, scorerParameters), note: scoresNote })
  const { strata } = await run.stage('count-strata/imported', 'countStrata', { corpus, topics: null, index }, { placement: data })
  return { pool: { corpus, tokens, index, topics: null, scores: scored?.scores ?? null }, counts: strata }
}

const scoringOf = ({ corpus: { scoring }, training }: CptRunSpec, { tokenizer, ...from }: { tokens: ArtifactRef; index: ArtifactRef; scorer: ArtifactRef; tokenizer: ArtifactRef }) => ({
  ...from, windowTokens: scoring.windowTokens, strideTokens: scoring.windowTokens, maxTokensPerDoc: scoring.maxTokensPerDoc, minTokens: scoring.minTokens, dtype: scoring.dtype ?? training.dtype,
  ...(scoring.maxNonFiniteRatio === undefined ? {} : { maxNonFiniteRatio: scoring.maxNonFiniteRatio }),
  ...(scoring.engine === 'kenlm' ? { engine: 'kenlm', tokenizer } as const : {}),
})

const scoresNote = (r: ResultOf<'scorePpl'>): string => `${r.counts.scored} documents, mean ${(r.counts.sumNllNats / Math.max(1, r.counts.scoredTokens)).toFixed(2)} nats/token`

/** The validation sets, which no run goes without: needsOf has refused one whose input leaves hold-out out. */
export const validationSetsOf = ({ validation }: PreparedCorpus): ArtifactRef => {
  if (validation === null) throw ApplicationFailure.nonRetryable('corpus: it has no validation sets, hold-out was off', 'InvalidInput')
  return validation
}

/** A stage that the input switches off stands on the page all the same. */
const leftOut = (run: Run, stage: DataStage): null => {
  run.show(stage, { stage, state: 'skipped', note: 'off in the input (corpus.off)' })
  return null
}

const dropsOf = (...judged: ({ verdicts: ArtifactRef } | null)[]): ArtifactRef[] => judged.flatMap((j) => (j === null ? [] : [j.verdicts]))

/** The stages that judged the corpus, in their order, and their verdicts. */
const judgedBy = (stages: Record<string, { verdicts: ArtifactRef } | null>): { steps: string[]; drops: ArtifactRef[] } => {
  const judged = Object.entries(stages).flatMap(([step, result]) => (result === null ? [] : [{ step, verdicts: result.verdicts }]))
  return { steps: judged.map((j) => j.step), drops: judged.map((j) => j.verdicts) }
}

/** Synthetic documents are made, not cleaned; they are tokenised like all others. */
export const prepareSynthetic = async (run: Run, { spec, tokenizer }: ResolvedRun): Promise<SyntheticCorpus | null> => {
  if (spec.synthesis.numDocs === 0) return null
  const { data } = spec.placement
  const { corpus } = await run.stage('synthesize-qa', 'synthesizeQa', { ...spec.synthesis, seed: spec.seed }, { placement: data, note: (r) => `${r.counts.docs} problems with computed answers, ${r.counts.wrong} made wrong` })
  const { tokens, index } = await run.stage('tokenize/synthetic', 'tokenize', { corpus, drops: [], tokenizer }, { placement: data, note: (r) => `${r.counts.tokens} tokens` })
  const { strata } = await run.stage('count-strata/synthetic', 'countStrata', { corpus, topics: null, index }, { placement: data })
  return { pool: { corpus, tokens, index, topics: null, scores: null }, counts: strata }
}

/** Labels of a seed sample, where the input asks for them. */
const labelSample = async (run: Run, spec: ResolvedRun['spec'], corpus: ArtifactRef, drops: ArtifactRef[]): Promise<{ labels?: ArtifactRef }> => {
  const { label, kinds } = spec.corpus.topics
  if (label === undefined) return {}
  const { languages, ...sample } = label
  const { labels } = await run.stage('label-topics', 'labelTopics', {
    corpus, drops, languages: Object.fromEntries(taxonomiesIn(spec.corpus.topics).filter((c) => languages.includes(c.language)).map(({ language, taxonomy, topics }) => [language, { taxonomy, topics: [...topics] }])), kinds, ...withoutGaps(sample), seed: spec.seed,
  }, { placement: spec.placement.data, note: (r) => `${r.counts.labelled} of ${r.counts.sampled} documents labelled, ${r.counts.promptTokens + r.counts.completionTokens} tokens` })
  return { labels }
}

/** With what scores too low dropped as well, where the input asks for that. */
const goodEnough = async (run: Run, { spec, encoders }: Pick<ResolvedRun, 'spec' | 'encoders'>, corpus: ArtifactRef, drops: ArtifactRef[]): Promise<{ verdicts: ArtifactRef } | null> => {
  const { quality, topics: { kinds: webKinds } } = spec.corpus
  if (quality === undefined) return null
  const { languages, kinds = webKinds, label } = quality
  const { data } = spec.placement
  const topics = [...qualityScores]
  const labels = label === undefined ? {} : await run.stage('label-topics/quality', 'labelTopics', {
    corpus, drops, languages: Object.fromEntries(languages.map((language) => [language, { taxonomy: qualityTaxonomy, topics }])), kinds, prompt: 'quality/1', ...withoutGaps(label), seed: spec.seed,
  }, { placement: data, note: (r) => `${r.counts.labelled} of ${r.counts.sampled} documents labelled, ${r.counts.promptTokens + r.counts.completionTokens} tokens` }).then((r) => ({ labels: r.labels }))
  const trained = await Promise.all(languages.map(async (language) => [
    language,
    await run.stage(`train-topic-classifier/quality-${language}`, 'trainTopicClassifier', { corpus, drops, ...labels, language, taxonomy: qualityTaxonomy, topics, kinds, seed: spec.seed, ...fineTuned(quality.classifier, language, encoders) },
      { placement: data, note: (r) => `accuracy ${r.accuracy.toFixed(2)} on ${r.numTest} held-out documents` }),
  ] as const))
  return await run.stage('score-quality', 'scoreQuality', {
    corpus, drops, scorers: Object.fromEntries(trained.map(([language, t]) => [language, t.classifier])), kinds, ...(quality.minScore === undefined ? {} : { minScore: quality.minScore }),
  }, { placement: data, note: kept })
}

/** The encoder that is to learn a language's labels, where the input names one. */
const fineTuned = (classifier: ClassifierSpec | undefined, language: string, encoders: ResolvedRun['encoders']) => {
  const encoder = encoderOf(classifier, language)
  if (encoder === null) return {}
  const { engine: _engine, model, ...settings } = encoder
  const found = encoders?.[model]
  if (found === undefined) throw new TypeError(`resolve-input found every encoder, but not ${model}`)
  return { encoder: { model: found, ...withoutGaps(settings) } }
}

const withoutGaps = <T extends object>(fields: T): T => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T

/** The languages that have a taxonomy, with its topics. */
const taxonomiesIn = ({ taxonomies, custom }: ResolvedRun['spec']['corpus']['topics']): { language: string; taxonomy: string; topics: readonly string[] }[] =>
  Object.entries(taxonomies).flatMap(([language, taxonomy]) => {
    const topics = taxonomy === null ? undefined : topicsOf(taxonomy, custom)
    return taxonomy === null || topics === undefined ? [] : [{ language, taxonomy, topics }]
  })

type SourceSpec = CptRunSpec['corpus']['sources'][number]

/** The elements of ingest's request that a source stands for; none where it is of tokens. */
const textFilesOf = (source: SourceSpec, sources: ResolvedRun['sources']): RequestOf<'ingest'>['sources'] => {
  const { path: _path, tokenizer: _tokenizer, eod: _eod, clean, format, ...same } = source
  if (format === 'megatron') return []
  return filesOf(sources, source.name).map(({ index: _index, ...file }) => ({
    ...same, ...(format === undefined ? {} : { format }), ...(clean === true ? { clean } : {}), fields: FieldMapping.parse(source.fields ?? {}), ...file,
  }))
}

const tokenFilesOf = (source: SourceSpec, sources: ResolvedRun['sources']): RequestOf<'importTokens'>['files'] => {
  const { name, language, kind, license, eod } = source
  if (!isTokens(source)) return []
  return filesOf(sources, name).map(({ index, ...file }) => {
    if (index === undefined || language === undefined || kind === undefined) throw new TypeError(`corpus: source ${name} was not resolved as tokens`)
    return { name, ...file, index, language, kind, license, eod }
  })
}

const filesOf = (sources: ResolvedRun['sources'], name: string): Omit<ResolvedRun['sources'][number], 'name'>[] => {
  const files = sources.filter((s) => s.name === name)
  if (files.length === 0) throw new TypeError(`corpus: source ${name} was not resolved`)
  return files.map(({ name: _name, ...file }) => file)
}

/** An upper bound before any of it is done: what is too short is scored by nobody. A forward pass takes 2 FLOP a parameter and token. */
const scoringCost = ({ docs, tokens }: { docs: number; tokens: number }, { maxTokensPerDoc, engine }: CptRunSpec['corpus']['scoring'], parameters: number): string => {
  const most = Math.min(tokens, docs * maxTokensPerDoc)
  return `at most ${most} tokens to score${engine === 'kenlm' ? ', by an n-gram model' : `, ${(2 * parameters * most).toExponential(1)} FLOP by ${parameters} parameters`}`
}

const kept = (r: { counts: { docs: number; kept: number } }): string => `${r.counts.kept} of ${r.counts.docs} documents kept`

const foundPersonalData = ({ counts: { docs, withAny, found } }: z.output<typeof FindPersonalDataResult>): string =>
  `in ${withAny} of ${docs} documents: ${Object.entries(found).map(([kind, n]) => `${kind} ${n}`).join(', ') || 'nothing'}`
