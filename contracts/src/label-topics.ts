import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { TaxonomyName, TopicName } from './topics.ts'
import { Count, Kind, Language, Seed, Tokens } from './units.ts'

/** How the model is asked; another wording is another version. */
export const LabelPrompt = z.enum(['topics/1', 'quality/1'])

/** What a seed sample may cost: documents a language, characters of each, and tokens of all prompts and answers together. */
export const LabelBudget = {
  docsPerLanguage: z.int().min(1).max(100_000),
  maxDocChars: z.int().min(100).max(100_000),
  maxTokens: Tokens.min(1),
}

/**
 * Labels a seed sample, drawn by hash of id, of every source alike, through the OpenAI-compatible endpoint that the worker's
 * configuration names (CPT_LABEL_URL, CPT_LABEL_KEY); of it only the model's name is identity. E-mail addresses, telephone and
 * identity numbers are not sent. Answers are kept one by one as they come, so that nothing is asked twice.
 */
export const LabelTopicsRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
  languages: z.record(Language, z.strictObject({ taxonomy: TaxonomyName, topics: z.array(TopicName).min(2) })),
  kinds: z.array(Kind).default(['web']),
  docsPerLanguage: LabelBudget.docsPerLanguage.default(2000),
  maxDocChars: LabelBudget.maxDocChars.default(4000),
  maxTokens: LabelBudget.maxTokens.default(20_000_000),
  model: z.string().min(1).max(200),
  prompt: LabelPrompt.default('topics/1'),
  seed: Seed.default(42),
})
export const LabelTopicsResult = z.object({
  labels: ArtifactRef,
  quarantine: ArtifactRef,
  /** What was expected before the first question was asked. */
  estimate: z.object({ docs: Count, promptTokens: Tokens, completionTokens: Tokens }),
  /** sampled = labelled + quarantined + unasked (the budget did not reach them). */
  counts: z.object({
    sampled: Count, labelled: Count, quarantined: Count, unasked: Count, requests: Count, retries: Count,
    promptTokens: Tokens, completionTokens: Tokens, byReason: z.record(z.string(), Count), byTopic: z.record(z.string(), Count),
  }),
})
export const labelTopics = stage({ name: 'label-topics', version: 2, shape: { kind: 'whole' }, request: LabelTopicsRequest, result: LabelTopicsResult })
