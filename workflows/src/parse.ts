import { ApplicationFailure } from '@temporalio/workflow'
import { checkInput, inputRefusal, type Problem } from '@cpt/contracts/parse-input'
import type { z } from 'zod'

/**
 * The door of every workflow: a bad input ends the run at once with all its problems. (A ZodError would fail the
 * workflow task instead, which Temporal retries for ever.)
 */
export const parseInput = <S extends z.ZodType>(schema: S, value: unknown): z.output<S> => {
  const { data, problems } = checkInput(schema, value)
  if (problems === null) return data
  throw invalidInput(problems)
}

/** Ends the run at once where there is any problem with its input. */
export const refuseInput = (problems: readonly Problem[]): void => {
  if (problems.length > 0) throw invalidInput(problems)
}

const invalidInput = (problems: readonly Problem[]): ApplicationFailure => ApplicationFailure.nonRetryable(inputRefusal(problems), 'InvalidInput', ...problems)
