import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count, Kind, Language, LearningRate, Ratio, Seed, Tokens } from './units.ts'

/** The versioned taxonomies of arXiv:2407.18743; ratios made under one taxonomy are void under another. */
export const taxonomies = {
  'syne-en/1': ['Mathematics and Physics', 'Computer Science and Engineering', 'Biology and Chemistry', 'History and Geography', 'Law and Policy', 'Philosophy and Logic', 'Economics and Business', 'Psychology and Sociology', 'Security and International Relations', 'Medicine and Health', 'Others'],
  'syne-zh/1': ['Biology and Chemistry', 'Computer Science and Engineering', 'Economics and Business', 'History and Geography', 'Law and Policy', 'Mathematics and Physics', 'Medicine and Health', 'Philosophy, Arts and Culture', 'Project and Practical Management', 'Psychology, Sociology and Education', 'Others'],
} as const satisfies Record<string, readonly string[]>
/** A taxonomy's name and version: one of ours, or one that the input brings (`corpus.topics.custom`). */
export const TaxonomyName = z.string().regex(/^[a-z0-9][a-z0-9.-]{0,60}\/[1-9][0-9]{0,5}$/, 'expected a name and a version, e.g. syne-en/1')
/** A topic: no underscore (fastText has it for a space) and no colon (what stands for a topic has one). */
export const TopicName = z.string().regex(/^[^\s_:\p{C}](?:[^_:\p{C}]{0,98}[^\s_:\p{C}])?$/u, 'expected 1 to 100 characters without _, : or control characters')
/** Taxonomies of an input's own; what a classifier is unsure of becomes Others, so each has that topic. */
export const CustomTaxonomies = z.record(TaxonomyName, z.array(TopicName).min(2).max(200).refine((topics) => topics.includes('Others'), 'expected Others among the topics').refine((topics) => new Set(topics).size === topics.length, 'expected different topics'))

/** The topics of a taxonomy, ours or the input's own; undefined where there is none of that name. */
export const topicsOf = (taxonomy: string, custom: Readonly<Record<string, readonly string[]>> = {}): readonly string[] | undefined =>
  Object.hasOwn(taxonomies, taxonomy) ? taxonomies[taxonomy as keyof typeof taxonomies] : Object.hasOwn(custom, taxonomy) ? custom[taxonomy] : undefined

/**
 * How an encoder is fine-tuned: tokens of a document that it reads, passes over the documents, and of each topic the most that
 * are trained on. `patience`: so many epochs without a lower loss on a tenth that is set aside end it, and the best one's
 * weights are kept; 0 trains all epochs.
 */
export const EncoderTraining = {
  maxTokens: z.int().min(8).max(8192),
  epochs: z.int().min(1).max(1000),
  patience: z.int().min(0).max(100),
  learningRate: LearningRate,
  batchDocs: z.int().min(1).max(4096),
  docsPerTopic: z.int().min(1).max(1_000_000),
}

/**
 * Trains one classifier a language on the labelled documents; `testShare` of them, by hash of id, judge it. A label of
 * `labels` (label-topics) goes before the one that the source gave. It is fastText's, or with `encoder` a fine-tuned
 * checkpoint of an encoder (a Hugging Face folder), to which `epochs`, `learningRate` and what follows them do not apply.
 */
export const TrainTopicClassifierRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
  labels: ArtifactRef.optional(),
  language: Language,
  taxonomy: TaxonomyName,
  topics: z.array(z.string()).min(2),
  kinds: z.array(Kind).default(['web']),
  testShare: Ratio.default(0.15),
  epochs: z.int().min(1).default(50),
  learningRate: z.number().positive().default(0.5),
  dimension: z.int().min(2).default(32),
  buckets: z.int().min(1000).default(50_000),
  wordNgrams: z.int().min(1).max(5).default(2),
  seed: Seed.default(42),
  encoder: z.strictObject({
    model: ArtifactRef,
    maxTokens: EncoderTraining.maxTokens.default(256),
    epochs: EncoderTraining.epochs.default(4),
    patience: EncoderTraining.patience.default(0),
    learningRate: EncoderTraining.learningRate.default(5e-5),
    batchDocs: EncoderTraining.batchDocs.default(32),
    docsPerTopic: EncoderTraining.docsPerTopic.default(2000),
  }).optional(),
})
export const ClassMetrics = z.object({ topic: z.string(), precision: z.number(), recall: z.number(), f1: z.number().optional(), support: Count })
/**
 * Of documents that were not trained on. `confusion[t][p]`: documents of topic t that got topic p; its last column is of those
 * in which no word is known. `confidence`: by twentieth of probability, so that any threshold's share can be read off it.
 * Results of version 1 have neither.
 */
export const TopicMetrics = z.object({
  accuracy: Ratio,
  perClass: z.array(ClassMetrics),
  macroF1: Ratio.optional(),
  confusion: z.array(z.array(Count)).optional(),
  othersRatio: Ratio.optional(),
  confidence: z.array(z.object({ from: Ratio, docs: Count, right: Count })).optional(),
})
export const TrainTopicClassifierResult = TopicMetrics.extend({ classifier: ArtifactRef, taxonomy: TaxonomyName, numTrain: Count, numTest: Count, encoder: z.object({ parameters: Count, epochs: Count, tokens: Tokens }).optional() })
export const trainTopicClassifier = stage({ name: 'train-topic-classifier', version: 2, shape: { kind: 'whole' }, request: TrainTopicClassifierRequest, result: TrainTopicClassifierResult })

/**
 * Labels documents of the given kinds; below `minProbability` the label is Others. `fallback: source`: documents of a
 * language without a classifier have `source:<name>` for a topic, and so strata of their own.
 */
export const ClassifyTopicsRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
  classifiers: z.record(Language, ArtifactRef),
  kinds: z.array(Kind).default(['web']),
  minProbability: Ratio.default(0.3),
  fallback: z.enum(['source']).optional(),
})
export const ClassifyTopicsResult = z.object({ topics: ArtifactRef, counts: z.object({ docs: Count, classified: Count, lowConfidence: Count, byTopic: z.record(z.string(), Count), bySource: z.record(z.string(), Count).optional() }) })
export const classifyTopics = stage({
  name: 'classify-topics',
  version: 2,
  shape: { kind: 'map', manifests: ['corpus', 'drops'], outputs: ['topics'] },
  request: ClassifyTopicsRequest,
  result: ClassifyTopicsResult,
})
