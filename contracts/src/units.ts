import { z } from 'zod'

/** A non-negative whole number of things. */
export const Count = z.int().nonnegative()
/** A number of tokens of the run's tokenizer. */
export const Tokens = z.int().nonnegative()
/** A number of optimizer steps. */
export const Steps = z.int().nonnegative()
/** Wall seconds, measured on a monotonic clock. */
export const Seconds = z.number().nonnegative()
/** A share of a whole, 0 to 1. */
export const Ratio = z.number().min(0).max(1)
/** Mean negative log-likelihood in nats per scored token; ppl = exp(nll). */
export const NatsPerToken = z.number().nonnegative()
/** Peak learning rate of AdamW. */
export const LearningRate = z.number().positive().max(1)
/** Seed of every random choice a stage makes. */
export const Seed = z.int().nonnegative().max(2 ** 31 - 1)
/** Lower-case hex sha256. */
export const Sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'expected 64 lower-case hex digits (sha256)')
/** A name that we mint: run, source, trial. Also safe as a folder and a job name. */
export const Name = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'expected 1 to 63 of a-z 0-9 . _ - starting with a letter or digit')
/** Language of a document; code counts within English (arXiv:2407.18743). */
export const Language = z.string().regex(/^[a-z]{2,8}$/, 'expected a language code such as en or zh')
/** Kind of source (arXiv:2407.18743, table of ratios). */
export const Kind = z.enum(['web', 'encyclopedia', 'book', 'qa', 'paper', 'math', 'code', 'synthetic'])
export type Kind = z.infer<typeof Kind>
