import { ApplicationFailure } from '@temporalio/common'
import type { FailureEvidence, FailureType } from '@cpt/contracts/failures'

/** Committed bytes do not match their digest, or are gone. */
export class StoreCorrupt extends Error {
  override readonly name = 'StoreCorrupt'
}

/** A path or reference that names nothing. */
export class UnknownPath extends Error {
  override readonly name = 'UnknownPath'
}

/** A failure that only a person (or new input) can resolve: the stage parks. */
export const needsPerson = (type: FailureType, message: string, evidence: FailureEvidence): ApplicationFailure => ApplicationFailure.nonRetryable(message, type, evidence)

/** A failure that Temporal retries at once: the next attempt of the activity claims the next attempt of the job. */
export const tryAgain = (message: string, evidence: FailureEvidence, type: FailureType = 'JobEnded'): ApplicationFailure =>
  ApplicationFailure.create({ message, type, nonRetryable: false, details: [evidence], nextRetryDelay: '200ms' })
