import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { z } from 'zod'
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

/** A store that cannot be read, or a Python that cannot be started. */
export class InspectionFailed extends Error {}

/** Reads what was decided about documents, by ml/cpt_ml/inspect_corpus.py. Throws InspectionFailed. */
export const inspectCorpus = async (config: Pick<Config, 'python' | 'home' | 'jobEnv' | 'roots'>, what: Inspectable, find: Find): Promise<Found> => {
  const python = spawn(config.python, ['-m', 'cpt_ml.inspect_corpus'], { cwd: join(config.home, 'ml'), env: config.jobEnv, stdio: ['pipe', 'pipe', 'pipe'] })
  const ended = once(python, 'close') as Promise<[number | null]>
  python.stdin.on('error', () => undefined) // one that ends early says why on its error output
  python.stdin.end(JSON.stringify({ roots: config.roots, ...what, find }))
  const [[code], said, complaint] = await Promise.all([ended, text(python.stdout), text(python.stderr)]).catch((error: unknown) => {
    throw new InspectionFailed(`${config.python}: ${error instanceof Error ? error.message : String(error)}`)
  })
  const answer = Answer.safeParse(jsonIn(said)).data
  if (answer === undefined || 'error' in answer) throw new InspectionFailed(answer?.error ?? `inspection ended with ${code ?? 'a signal'}: ${complaint.trim().split('\n').at(-1) ?? ''}`)
  return answer
}

const Answer = z.union([z.object({ error: z.string() }), Found])

const jsonIn = (said: string): unknown => {
  try {
    return JSON.parse(said)
  } catch {
    return undefined
  }
}
