/**
 * Failure types that cross Temporal, with what an operator needs at 3 a.m.: the likely cause and the action to try
 * first. Each has an entry of the same name in docs/runbook.md.
 */
export const failures = {
  InvalidInput: { cause: 'The JSON given to the workflow does not fit its schema.', suggest: 'start again with the corrected input' },
  BadRequest: { cause: 'The stage refused its request: inputs do not fit each other or a value is out of range.', suggest: 'retry with a patch of the named field' },
  BadData: { cause: 'The data cannot be used as they are.', suggest: 'repair or remove the named file, then retry' },
  TooMuchQuarantined: { cause: 'More lines were unreadable than maxQuarantineRatio allows.', suggest: 'repair the source, or retry with a higher maxQuarantineRatio as patch' },
  LossNotFinite: { cause: 'The loss or gradient became NaN or infinite; usually the learning rate is too high or a document is corrupt.', suggest: 'retry with a lower schedule.peakLr as patch' },
  NeedsAttention: { cause: 'The job failed several times without committing anything new.', suggest: 'read the log tail, mend the cause, then retry' },
  OutOfMemory: { cause: 'The job was killed for memory.', suggest: 'retry with a smaller placement.batchTokens as patch' },
  DiskFull: { cause: 'No space is left where the store lives.', suggest: 'free space (cpt gc), then retry' },
  StoreCorrupt: { cause: 'Committed data do not match their digest.', suggest: 'restore the named file from a copy, or remove its commit record to compute it again, then retry' },
  JobEnded: { cause: 'The job ended before its work was committed; it is retried by itself.', suggest: 'nothing, unless it repeats' },
  Aborted: { cause: 'An operator chose to abort.', suggest: 'start again when the cause is mended' },
  GateFailed: { cause: 'The model lost more of its old abilities than the gate allows.', suggest: 'look at the report; lower the ratio of new language or the learning rate' },
} as const
export type FailureType = keyof typeof failures

/** What a failed stage carries as failure details, shown on the run page when it parks. */
export interface FailureEvidence {
  stage: string
  fingerprint: string
  attempts: number
  endClass: string
  logTail: string[]
}
