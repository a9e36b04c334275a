import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count, Kind, Language, Ratio, Seed } from './units.ts'

/** The versioned taxonomies of arXiv:2407.18743; ratios made under one taxonomy are void under another. */
export const taxonomies = {
  'syne-en/1': ['Mathematics and Physics', 'Computer Science and Engineering', 'Biology and Chemistry', 'History and Geography', 'Law and Policy', 'Philosophy and Logic', 'Economics and Business', 'Psychology and Sociology', 'Security and International Relations', 'Medicine and Health', 'Others'],
  'syne-zh/1': ['Biology and Chemistry', 'Computer Science and Engineering', 'Economics and Business', 'History and Geography', 'Law and Policy', 'Mathematics and Physics', 'Medicine and Health', 'Philosophy, Arts and Culture', 'Project and Practical Management', 'Psychology, Sociology and Education', 'Others'],
} as const satisfies Record<string, readonly string[]>
export const TaxonomyName = z.enum(['syne-en/1', 'syne-zh/1'])

/** Trains one fastText classifier a language on the labelled documents; `testShare` of them, by hash of id, judge it. */
export const TrainTopicClassifierRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
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
})
export const ClassMetrics = z.object({ topic: z.string(), precision: z.number(), recall: z.number(), support: Count })
export const TrainTopicClassifierResult = z.object({ classifier: ArtifactRef, taxonomy: TaxonomyName, numTrain: Count, numTest: Count, accuracy: Ratio, perClass: z.array(ClassMetrics) })
export const trainTopicClassifier = stage({ name: 'train-topic-classifier', version: 1, shape: { kind: 'whole' }, request: TrainTopicClassifierRequest, result: TrainTopicClassifierResult })

/** Labels documents of the given kinds; below `minProbability` the label is Others. */
export const ClassifyTopicsRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
  classifiers: z.record(Language, ArtifactRef),
  kinds: z.array(Kind).default(['web']),
  minProbability: Ratio.default(0.3),
})
export const ClassifyTopicsResult = z.object({ topics: ArtifactRef, counts: z.object({ docs: Count, classified: Count, lowConfidence: Count, byTopic: z.record(z.string(), Count) }) })
export const classifyTopics = stage({
  name: 'classify-topics',
  version: 1,
  shape: { kind: 'map', manifests: ['corpus', 'drops'], outputs: ['topics'] },
  request: ClassifyTopicsRequest,
  result: ClassifyTopicsResult,
})
