import { ApplicationFailure } from '@temporalio/workflow'
import { problemsOf } from '@cpt/contracts/parse-input'
import type { z } from 'zod'

/**
 * The door of every workflow: a bad input ends the run at once with all its problems. (A ZodError would fail the
 * workflow task instead, which Temporal retries for ever.)
 */
export const parseInput = <S extends z.ZodType>(schema: S, value: unknown): z.output<S> => {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const problems = problemsOf(parsed.error, value)
  throw ApplicationFailure.nonRetryable(
    `${problems.length} problem${problems.length === 1 ? '' : 's'} in the input:\n${problems.map((p) => `  ${p.path}: expected ${p.expected}, got ${p.got}`).join('\n')}`,
    'InvalidInput',
    ...problems,
  )
}
