import { z } from 'zod'
import { askPython } from '../ask-python.ts'
import type { Config } from '../config.ts'
import type { Inspectable } from './corpus-artifacts.ts'

/** A document by `id`, or else a sample of `count` of those that fit; `step` and `reason` say what dropped them. */
export interface Find {
  id: string | null
  count: number
  seed: number
  step: string | null
  reason: string | null
  kept: boolean
  source: string | null
  language: string | null
}

const Verdict = z.object({
  stage: z.string(),
  keep: z.boolean(),
  reason: z.string().nullable(),
  evidence: z.string().nullable(),
  cluster: z.object({ number: z.number(), size: z.number(), ids: z.array(z.string()) }).optional(),
})
const Document = z.object({
  id: z.string(),
  text: z.string(),
  language: z.string(),
  kind: z.string(),
  label: z.string().nullable(),
  source: z.string(),
  origin: z.string(),
  license: z.string(),
  use: z.string(),
  line: z.number(),
  place: z.object({ pool: z.number(), shard: z.number(), row: z.number() }),
  verdicts: z.array(Verdict),
  topic: z.string().nullable(),
  topicProbability: z.number().nullable(),
  quality: z.object({ score: z.number(), probability: z.number() }).nullable(),
  tokens: z.object({ offset: z.number(), count: z.number(), bytes: z.number() }).nullable(),
  nll: z.number().nullable(),
  scoredTokens: z.number().nullable(),
  validationSets: z.array(z.string()),
  drawn: z.array(z.object({ plan: z.number(), band: z.object({ fromTokens: z.number(), toTokens: z.number(), totalTokens: z.number() }), tokens: z.number(), pieces: z.array(z.object({ offset: z.number(), start: z.number(), length: z.number(), epoch: z.number() })) })),
})
export type InspectedDocument = z.infer<typeof Document>

const Quarantined = z.object({ source: z.string(), line: z.number(), offset: z.number(), sha256: z.string(), reason: z.string() })
const Found = z.object({ documents: z.array(Document), quarantined: z.array(Quarantined).default([]), sources: z.array(z.string()).default([]), fitting: z.number().nullable().default(null), looked: z.number() })
export type Found = z.infer<typeof Found>

/** Reads what was decided about documents, by ml/cpt_ml/inspect_corpus.py. Throws PythonFailed. */
export const inspectCorpus = async (config: Pick<Config, 'python' | 'home' | 'jobEnv' | 'roots'>, what: Inspectable, find: Find): Promise<Found> =>
  await askPython(config, 'inspect_corpus', { roots: config.roots, ...what, find }, Found)
