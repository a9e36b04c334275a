import { ApplicationFailure } from '@temporalio/workflow'
import { checkInput, inputRefusal } from '@cpt/contracts/parse-input'
import type { z } from 'zod'

/**
 * The door of every workflow: a bad input ends the run at once with all its problems. (A ZodError would fail the
 * workflow task instead, which Temporal retries for ever.)
 */
export const parseInput = <S extends z.ZodType>(schema: S, value: unknown): z.output<S> => {
  const { data, problems } = checkInput(schema, value)
  if (problems === null) return data
  throw ApplicationFailure.nonRetryable(
    inputRefusal(problems),
    'InvalidInput',
    ...problems,
  )
}
