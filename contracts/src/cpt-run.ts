import { z } from 'zod'
import { VocabularyMethod } from './extend-vocabulary.ts'
import { FilterRules } from './filter.ts'
import { PersonalDataKind, Placeholders } from './find-personal-data.ts'
import { EndOfDocument } from './import-tokens.ts'
import { FieldMapping, ShardBytes, ShardDocs, SourceFormat } from './ingest.ts'
import { Placement, type CostEstimate } from './job.ts'
import { LabelBudget } from './label-topics.ts'
import { Mixture, ReweightSettings } from './mixture.ts'
import { partOf } from './part-of.ts'
import { DecayShape, Engine, Guard, OptimizerSettings, Schedule, SchedulePart } from './train.ts'
import { CustomTaxonomies, EncoderTraining, TaxonomyName, topicsOf } from './topics.ts'
import { Count, Kind, Language, LearningRate, Name, Ratio, Seed, Sha256, Tokens } from './units.ts'

/** A file or folder under a root of the worker's configuration, e.g. samples:corpus/en.jsonl.zst. */
export const InputPath = z.string().max(600).regex(/^[a-z][a-z0-9-]{0,30}:(?!\/)(?!.*(?:^|[:/])\.\.(?:\/|$))[^\u0000-\u001f\u007f\\]+$/, 'expected <root>:<relative path> without .., e.g. samples:corpus/en.jsonl.zst')

/** A list whose elements are told apart by name. */
const named = <T extends z.ZodType<{ name: string }, { name: string }>>(element: T, most: number) =>
  z.array(element).max(most).superRefine((list, ctx) => {
    const names = list.map((x) => x.name)
    names.forEach((name, i) => {
      if (names.indexOf(name) !== i) ctx.addIssue({ code: 'custom', path: [i, 'name'], message: 'expected different names' })
    })
  })

/**
 * A file, or a folder all of whose files are of the format (absent: jsonl); of plain text every file is a document. `clean`: the
 * text was filtered before, and filter keeps it; dedup and decontaminate still look at it. `megatron`: tokens (`.bin`, its
 * `.idx` beside it) that were made with the base's tokenizer, whose sha256 is `tokenizer`; no stage but score-ppl looks at them.
 */
const SourceSpec = z.strictObject({
  name: Name,
  path: InputPath,
  format: z.enum([...SourceFormat.options, 'megatron']).optional(),
  language: Language.optional(),
  kind: Kind.optional(),
  license: z.string().max(200).optional(),
  use: z.enum(['train', 'validate']).default('train'),
  fields: FieldMapping.partial().optional(),
  clean: z.boolean().optional(),
  tokenizer: Sha256.optional(),
  eod: EndOfDocument.optional(),
}).superRefine((source, ctx) => {
  const bad = (key: string, message: string) => ctx.addIssue({ code: 'custom', path: [key], message })
  if (source.format === 'megatron') {
    for (const key of ['tokenizer', 'language', 'kind'] as const) if (source[key] === undefined) bad(key, key === 'tokenizer' ? 'expected the sha256 of the tokenizer.json that made the tokens' : 'expected one: tokens do not say their own')
    for (const key of ['fields', 'clean'] as const) if (source[key] !== undefined) bad(key, 'expected nothing: tokens have no fields, and nothing filters them')
    if (source.use === 'validate') bad('use', 'expected train: validation sets are of text')
    if (source.path.endsWith('.idx')) bad('path', 'expected the .bin file, beside which its .idx lies, or their folder')
  } else for (const key of ['tokenizer', 'eod'] as const) if (source[key] !== undefined) bad(key, 'expected nothing: it is for format megatron')
})
type SourceSpec = z.infer<typeof SourceSpec>

/** Whether a source is of tokens instead of text. */
export const isTokens = ({ format }: Pick<SourceSpec, 'format'>): boolean => format === 'megatron'

/**
 * Takes e-mail addresses, telephone and identity numbers out of what models read, in documents of these kinds of source
 * (absent: web): in the tokens and validation sets a placeholder stands in their place. The corpus stays as it was.
 */
const PersonalDataSpec = z.strictObject({ kinds: z.array(Kind), find: z.array(PersonalDataKind).min(1), placeholders: partOf(Placeholders) }).partial()
/** A seed sample of these languages is labelled by a model before their classifiers are trained (contracts/src/label-topics.ts). */
const LabelSpec = z.strictObject({
  languages: z.array(Language).min(1).max(100),
  model: z.string({ error: 'expected the name of a model, here or as CPT_LABEL_MODEL in the worker’s configuration' }).min(1).max(200),
  docsPerLanguage: LabelBudget.docsPerLanguage.optional(),
  maxDocChars: LabelBudget.maxDocChars.optional(),
  maxTokens: LabelBudget.maxTokens.optional(),
})

const ClassifierFields = z.strictObject({ engine: z.enum(['fasttext', 'encoder']), model: InputPath.optional(), ...z.strictObject(EncoderTraining).partial().shape })
const isWhole = ({ engine, ...more }: z.infer<typeof ClassifierFields>, ctx: z.RefinementCtx): void => {
  if (engine === 'encoder' && more.model === undefined) ctx.addIssue({ code: 'custom', path: ['model'], message: 'expected the folder of an encoder (config.json, model.safetensors, tokenizer.json)' })
  if (engine === 'fasttext') for (const [key, value] of Object.entries(more)) if (value !== undefined && key !== 'languages') ctx.addIssue({ code: 'custom', path: [key], message: 'expected nothing: it is for engine encoder' })
}
/**
 * What sorts documents: fastText (absent: that), or an encoder's checkpoint given by path, fine-tuned on the same labels.
 * `languages`: another one for these.
 */
const ClassifierSpec = ClassifierFields.extend({ languages: z.record(Language, ClassifierFields.superRefine(isWhole)).optional() }).superRefine(isWhole)
export type ClassifierSpec = z.infer<typeof ClassifierSpec>

/** The classifier that a setting gives a language; null: fastText. */
export const encoderOf = (spec: ClassifierSpec | undefined, language: string): (z.infer<typeof ClassifierFields> & { model: string }) | null => {
  if (spec === undefined) return null
  const { languages, ...all } = spec
  const { model, ...of } = languages?.[language] ?? all
  return of.engine === 'fasttext' || model === undefined ? null : { ...of, model }
}

/** Data stages that a corpus can do without; dedup goes with its signatures, classify-topics with the training of its classifiers. */
export const DataStage = z.enum(['filter', 'dedup', 'decontaminate', 'classify-topics', 'hold-out', 'score-ppl'])
export type DataStage = z.infer<typeof DataStage>

/**
 * `name`: a run or preparation commits its corpus under it once all data stages are done (contracts/src/committed-corpus.ts).
 * `off`: stages left out; what a run cannot do without is refused by needsOf (contracts/src/stages-off.ts).
 */
export const CorpusSpec = z.strictObject({
  name: Name.optional(),
  sources: named(SourceSpec, 1000).min(1),
  off: z.array(DataStage).optional(),
  maxQuarantineRatio: Ratio,
  shardDocs: ShardDocs.optional(),
  shardBytes: ShardBytes.optional(),
  filter: FilterRules,
  dedup: z.strictObject({ ngram: z.int().min(1).max(50), numPermutations: z.int().min(16).max(1024), jaccard: Ratio }).partial(),
  decontaminate: z.strictObject({ ngram: z.int().min(2).max(100), ignoreGramsOver: Count, maxHitRatio: Ratio }).partial(),
  personalData: PersonalDataSpec.optional(),
  /** `taxonomies`: null takes a language's away; `fallback: source`: a language without one has its sources for topics. */
  topics: z.strictObject({
    kinds: z.array(Kind), minProbability: Ratio, taxonomies: z.record(Language, TaxonomyName.nullable()),
    custom: CustomTaxonomies.optional(),
    fallback: z.enum(['source']).optional(),
    label: LabelSpec.optional(),
    classifier: ClassifierSpec.optional(),
  }),
  /** Scores documents of these languages from 0 to 5 and drops those under `minScore`; labels are what sources give for a topic, 0 to 5, or a model's. */
  quality: z.strictObject({
    languages: z.array(Language).min(1).max(100),
    kinds: z.array(Kind).optional(),
    minScore: z.int().min(0).max(5).optional(),
    label: LabelSpec.omit({ languages: true }).optional(),
    classifier: ClassifierSpec.optional(),
  }).optional(),
  holdOut: z.strictObject({ targetSeNats: z.number().positive(), pairedSdNats: z.number().positive(), maxShare: Ratio, minDocs: z.int().min(1), maxDocChars: z.int().min(100) }).partial(),
  scoring: z.strictObject({
    windowTokens: z.int().min(8), maxTokensPerDoc: z.int().min(8), minTokens: z.int().min(2),
    /** Another model with the base's tokenizer that scores in its place, as a smaller one; absent: the base itself. With `engine: kenlm` an .arpa or binary file. */
    model: InputPath.optional(),
    /** `kenlm`: an n-gram model over the pieces of the base's tokenizer, in place of a transformer. */
    engine: z.enum(['transformers', 'kenlm']).optional(),
    /** Absent: that of the training. */
    dtype: z.enum(['float32', 'bfloat16']).optional(),
    maxNonFiniteRatio: Ratio.optional(),
  }),
})

/** Any part of a corpus, or an alias: `newest` stands for the newest committed corpus of that name, with all its settings. */
const CorpusInput = partOf(CorpusSpec.extend({ newest: Name.optional() })).superRefine(({ newest, ...beside }, ctx) => {
  if (newest === undefined) return
  for (const key of Object.keys(beside)) ctx.addIssue({ code: 'custom', path: [key], message: `expected nothing beside newest: the corpus ${newest} brings its own` })
})

const SynthesisSpec = z.strictObject({
  numDocs: z.int().min(0).max(10_000_000),
  languages: z.array(Language).min(1),
  families: z.array(z.enum(['arithmetic', 'units', 'programs'])).min(1),
  wrongAnswerShare: Ratio,
})

/** One stage of the plan: `rounds` rounds that share `tokens`; a round's mixture never changes while it runs. */
export const PlanStage = z.strictObject({
  name: Name,
  rounds: z.int().min(1).max(1000),
  tokens: Tokens.min(1),
  order: z.enum(['perplexity', 'random']),
  curriculumLanguages: z.array(Language).nullable().default(null),
  mixture: Mixture,
  reweight: z.boolean().default(false),
  /**
   * The learning rate over this stage, from where the one before left it: annealing, or a re-warming and new decay. Absent:
   * training.schedule goes on, or after a stage with a schedule of its own the rate is held.
   */
  schedule: SchedulePart.optional(),
})
export type PlanStage = z.infer<typeof PlanStage>

/** Tokens that a stage trains: its rounds are whole numbers of global batches. */
export const trainedTokensOf = ({ tokens, rounds }: Pick<PlanStage, 'tokens' | 'rounds'>, globalBatchTokens: number): number =>
  rounds * Math.floor(tokens / rounds / globalBatchTokens) * globalBatchTokens

const TrainingSpec = z.strictObject({
  engine: Engine.optional(),
  sequenceTokens: z.int().min(8),
  globalBatchTokens: z.int().min(8),
  schedule: Schedule.shape.shape,
  peakLr: LearningRate,
  minLr: z.number().nonnegative().max(1),
  /** Rate that the warm-up starts from; absent: 0. */
  initialLr: z.number().nonnegative().max(1).optional(),
  warmupTokens: Tokens,
  decayTokens: Tokens,
  /** Of warmup-stable-decay; absent: one-minus-sqrt. */
  decayShape: DecayShape.optional(),
  optimizer: OptimizerSettings,
  optimizerBetweenRounds: z.enum(['keep', 'reset']),
  optimizerBetweenStages: z.enum(['keep', 'reset']),
  dtype: z.enum(['float32', 'bfloat16']),
  /** Whether documents that share a window are hidden from each other; absent: they are not (as SynE trains). */
  documentMasking: z.boolean().optional(),
  /** Against batches without a number and spikes of the loss; absent: the usual one (Guard's defaults); null: such a batch parks the phase, and spikes are trained on. */
  guard: Guard.nullable().optional(),
  /** The frozen sets are measured after each so many steps of a round too; absent: at its end alone. */
  validateEverySteps: z.int().min(1).optional(),
  /**
   * Which model of the last round is evaluated, judged and exported: that of its last step (absent), or of the step at which
   * the frozen sets had the lowest loss. Rounds before it always hand on where they ended: optimizer, schedule and data go on.
   */
  take: z.enum(['last', 'best']).optional(),
})

const BenchmarkSpec = z.strictObject({
  name: Name,
  path: InputPath,
  kind: z.enum(['mcq', 'generate', 'solution']),
  shots: z.int().min(0).max(64),
  limit: z.int().min(1).nullable().default(null),
  maxGeneratedTokens: z.int().min(1).max(4096).default(64),
})

const EvaluationSpec = z.strictObject({
  windowTokens: z.int().min(8),
  maxTokensPerDoc: z.int().min(8),
  benchmarks: named(BenchmarkSpec, 100),
})

/**
 * The gate. Retention: the paired rise of loss on retained text must be shown to stay within `retentionToleranceNats`
 * (nats per token); benchmarks: non-inferiority within `benchmarkMargin`; both at `z` standard errors. Between the two
 * bounds the gate is undecided and a person decides.
 */
export const GateSpec = z.strictObject({
  retentionToleranceNats: z.number().min(0),
  minGainNats: z.number().min(0),
  benchmarkMargin: z.number().min(0),
  z: z.number().min(0).max(10),
})
export type GateSpec = z.infer<typeof GateSpec>

const PlacementSpec = z.strictObject({ data: Placement, scoring: Placement, train: Placement, evaluate: Placement })
const Plan = named(PlanStage, 20).min(1)
/**
 * `tokenizer`: a tokenizer.json that takes the place of the model's before anything is tokenized, scored or trained; rows of new
 * tokens are made by `vocabularyMethod` (absent: subword-mean), their number is padded to a multiple of `vocabularyMultipleOf`.
 */
const BaseSpec = z.strictObject({
  model: InputPath,
  license: z.string().max(100),
  tokenizer: InputPath.optional(),
  vocabularyMethod: VocabularyMethod.optional(),
  vocabularyMultipleOf: z.int().min(1).max(4096).optional(),
})

/** Tokens that all rounds of a plan train. */
export const plannedTokens = ({ plan, training: { globalBatchTokens } }: { plan: readonly PlanStage[]; training: { globalBatchTokens: number } }): number =>
  plan.reduce((sum, s) => sum + trainedTokensOf(s, globalBatchTokens), 0)

const LineageEntry = z.strictObject({ what: z.string().max(100), sha256: z.string().max(64), uri: z.string().max(700) })

/** A complete run: what `resolveInput` returns and the workflow carries out. Presets fill what the input leaves out. */
export const CptRunSpec = z
  .strictObject({
    name: Name,
    description: z.string().max(2000),
    owner: z.string().max(100),
    seed: Seed,
    targetLanguage: Language,
    base: BaseSpec,
    corpus: CorpusSpec,
    synthesis: SynthesisSpec,
    plan: Plan,
    training: TrainingSpec,
    reweight: ReweightSettings,
    evaluation: EvaluationSpec,
    gate: GateSpec,
    placement: PlacementSpec,
    /** What led to this run, as the verdict of a sweep: stands in the lineage of what it exports. */
    lineage: z.array(LineageEntry).max(20).optional(),
  })
  .superRefine((spec, ctx) => {
    const bad = (path: (string | number)[], message: string) => ctx.addIssue({ code: 'custom', path, message })
    if (spec.training.globalBatchTokens % spec.training.sequenceTokens !== 0)
      bad(['training', 'globalBatchTokens'], `expected a multiple of training.sequenceTokens (${spec.training.sequenceTokens})`)
    const { schedule, warmupTokens, decayTokens, globalBatchTokens } = spec.training
    const ownSchedule = spec.plan.findIndex((s) => s.schedule !== undefined)
    const planned = (ownSchedule < 0 ? spec.plan : spec.plan.slice(0, ownSchedule)).reduce((sum, s) => sum + trainedTokensOf(s, globalBatchTokens), 0)
    const decay = schedule === 'warmup-stable-decay' ? decayTokens : 0
    // a plan without a whole batch is told by its own line below
    if (schedule !== 'constant' && planned > 0 && warmupTokens + decay > planned)
      bad(['training', decay > 0 ? 'decayTokens' : 'warmupTokens'], `expected a warm-up and decay that fit into the plan's ${planned} tokens, got ${warmupTokens} + ${decay}`)
    if (spec.training.take === 'best' && spec.training.validateEverySteps === undefined) bad(['training', 'take'], 'expected training.validateEverySteps beside it: the best is one of the steps that were validated')
    for (const key of ['vocabularyMethod', 'vocabularyMultipleOf'] as const) if (spec.base[key] !== undefined && spec.base.tokenizer === undefined) bad(['base', key], 'expected base.tokenizer beside it')
    if (spec.training.initialLr !== undefined && spec.training.initialLr > spec.training.peakLr) bad(['training', 'initialLr'], `expected at most training.peakLr (${spec.training.peakLr})`)
    if (spec.training.decayShape !== undefined && schedule !== 'warmup-stable-decay') bad(['training', 'decayShape'], 'expected nothing: it is of training.schedule warmup-stable-decay')
    spec.plan.forEach(({ schedule: part, ...stage }, i) => {
      if (part === undefined) return
      const wrong = (key: keyof SchedulePart | null, message: string) => bad(['plan', i, 'schedule', ...(key === null ? [] : [key])], message)
      if (i === 0) wrong(null, 'expected nothing: the first stage follows training.schedule')
      if ((part.endLr === undefined) !== (part.shape === 'hold')) wrong('endLr', part.shape === 'hold' ? 'expected nothing: the rate is held' : 'expected the rate that the stage ends at')
      if ((part.rewarmTokens === undefined) !== (part.rewarmLr === undefined)) wrong(part.rewarmTokens === undefined ? 'rewarmTokens' : 'rewarmLr', 'expected rewarmTokens and rewarmLr together')
      if ((part.rewarmTokens ?? 0) > trainedTokensOf(stage, globalBatchTokens)) wrong('rewarmTokens', `expected at most the stage's ${trainedTokensOf(stage, globalBatchTokens)} tokens`)
    })
    for (const [language, taxonomy] of Object.entries(spec.corpus.topics.taxonomies)) {
      if (taxonomy !== null && topicsOf(taxonomy, spec.corpus.topics.custom) === undefined) bad(['corpus', 'topics', 'taxonomies', language], `expected syne-en/1, syne-zh/1 or one of corpus.topics.custom (${Object.keys(spec.corpus.topics.custom ?? {}).join(', ') || 'none is given'})`)
    }
    spec.corpus.topics.label?.languages.forEach((language, i) => {
      if ((spec.corpus.topics.taxonomies[language] ?? null) === null) bad(['corpus', 'topics', 'label', 'languages', i], 'expected a language that corpus.topics.taxonomies gives a taxonomy')
    })
    for (const language of Object.keys(spec.corpus.topics.classifier?.languages ?? {})) {
      if ((spec.corpus.topics.taxonomies[language] ?? null) === null) bad(['corpus', 'topics', 'classifier', 'languages', language], 'expected a language that corpus.topics.taxonomies gives a taxonomy')
    }
    for (const language of Object.keys(spec.corpus.quality?.classifier?.languages ?? {})) {
      if (spec.corpus.quality?.languages.includes(language) === false) bad(['corpus', 'quality', 'classifier', 'languages', language], 'expected one of corpus.quality.languages')
    }
    if (spec.corpus.sources.every(isTokens)) bad(['corpus', 'sources'], 'expected a source of text beside the tokens: validation sets are made of it')
    if (!spec.plan.some((s) => (s.mixture.languages[spec.targetLanguage] ?? 0) > 0)) bad(['targetLanguage'], 'expected a language that the plan gives a share')
    spec.plan.forEach((s, i) => {
      if (s.tokens < s.rounds * spec.training.globalBatchTokens) bad(['plan', i, 'tokens'], `expected at least one global batch (${spec.training.globalBatchTokens} tokens) a round`)
      if ((s.mixture.languages['synthetic'] ?? 0) > 0 && spec.synthesis.numDocs === 0) bad(['synthesis', 'numDocs'], `expected synthetic documents: plan[${i}] gives them a share`)
    })
  })
export type CptRunSpec = z.infer<typeof CptRunSpec>

/**
 * What a person gives from the UI, the CLI or a schedule: any part of a run, over a preset. With nothing at all the
 * quickstart preset runs. Lists replace the preset's, objects are merged key by key; `mixture` replaces whole.
 */
export const CptRunInput = z.strictObject({
  preset: z.enum(['quickstart']).optional(),
  name: Name.optional(),
  description: z.string().max(2000).optional(),
  owner: z.string().max(100).optional(),
  seed: Seed.optional(),
  targetLanguage: Language.optional(),
  base: partOf(BaseSpec).optional(),
  corpus: CorpusInput.optional(),
  synthesis: partOf(SynthesisSpec).optional(),
  plan: Plan.optional(),
  training: partOf(TrainingSpec).optional(),
  reweight: partOf(ReweightSettings).optional(),
  evaluation: partOf(EvaluationSpec).optional(),
  gate: partOf(GateSpec).optional(),
  placement: partOf(PlacementSpec).optional(),
})
export type CptRunInput = z.input<typeof CptRunInput>

/** What `corpusPreparation` takes: a run, of which it carries out the data stages; the corpus needs the name that it is committed under. */
export const CorpusPreparationInput = CptRunInput.superRefine(({ corpus }, ctx) => {
  if (corpus?.newest !== undefined) ctx.addIssue({ code: 'custom', path: ['corpus', 'newest'], message: 'expected sources to prepare, not an alias of what was prepared before' })
  else if (corpus?.name === undefined) ctx.addIssue({ code: 'custom', path: ['corpus', 'name'], message: 'expected the name under which the corpus is committed' })
})

/** What the run page and `cpt status` show, and the `progress` query returns. */
export interface StageLine {
  key: string
  stage: string
  state: 'running' | 'done' | 'reused' | 'skipped' | 'parked' | 'paused' | 'failed'
  fingerprint: string
  startedAtMs: number
  seconds: number
  jobSeconds: number
  attempts: number
  note: string
}
export interface Parked {
  stage: string
  park: number
  type: string
  message: string
  cause: string
  suggest: string
  actions: ('retry' | 'skip' | 'abort')[]
  logTail: string[]
  sinceMs: number
}
export interface Decision {
  stage: string
  park: number
  action: 'retry' | 'skip' | 'abort'
  patch: unknown
  reason: string
  by: string
  atMs: number
}
export interface RunProgress {
  status: 'running' | 'parked' | 'paused' | 'done' | 'failed'
  /** Holds back whatever would begin next; stands beside `parked`, which is about what failed. */
  paused: boolean
  current: string
  stages: StageLine[]
  parked: Parked[]
  /** Workflows begun by this one that wait for a person, on a page of their own. */
  waits?: (Pick<Parked, 'stage' | 'park' | 'type' | 'message' | 'cause' | 'suggest' | 'actions'> & { workflowId: string })[]
  /** What the workflow asks a person for by an update of that name, with what there is to know about it. */
  asks?: { update: string; lines: string[] }
  decisions: Decision[]
  recoveries: number
  live: LiveProgress | null
}
/** Sent by a long stage's activity to its workflow, rarely (it is history), so that the page tells step, loss and ETA. */
export interface LiveProgress {
  key: string
  phase: string
  done: number
  total: number
  step: number | null
  tokens: number | null
  loss: number | null
  tokensPerSecond: number | null
  etaSeconds: number | null
  attempts: number
  /** What the work will cost by its job's own estimate, made before it began. */
  estimate?: CostEstimate | undefined
}

/** Argument of the update `resolveFailure`; `stage` and `park` guard against a stale or repeated press. */
export const ResolveFailure = z.strictObject({
  stage: z.string().min(1).max(200),
  park: z.int().min(1),
  action: z.enum(['retry', 'skip', 'abort']),
  patch: z.strictObject({ request: z.record(z.string(), z.unknown()).optional(), placement: partOf(Placement).optional() }).optional(),
  reason: z.string().max(2000).default(''),
  by: z.string().max(100).default('unknown'),
})
export type ResolveFailure = z.input<typeof ResolveFailure>

/** The result of a run: small, with the way to everything else. */
export const CptRunResult = z.object({
  verdict: z.enum(['pass', 'fail', 'undecided']),
  model: z.string().nullable(),
  report: z.string(),
  tokens: Tokens,
  change: z.array(z.object({ group: z.string(), nllBefore: z.number(), nllAfter: z.number(), deltaNll: z.number(), seNll: z.number() })),
})
export type CptRunResult = z.infer<typeof CptRunResult>
