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
  OutOfMemory: { cause: 'The job needs more memory than there is; the micro-batch was halved by itself as far as it goes.', suggest: 'retry on a larger machine, or with a larger placement.memoryMiB as patch' },
  DiskFull: { cause: 'No space or no quota is left where the job writes.', suggest: 'free space (cpt gc), then retry' },
  NotPermitted: { cause: 'The job may not read or write there: permissions, credentials, or a disk mounted read-only.', suggest: 'mend the permission or the mount, then retry' },
  InputMissing: { cause: 'A committed file that the job reads is gone from the store.', suggest: 'restore the file, or start a new run: what is missing is made again' },
  StoreCorrupt: { cause: 'Committed data do not match their digest.', suggest: 'restore the named file from a copy, or remove its commit record to compute it again, then retry' },
  StoreUnreachable: { cause: 'The network or the object store did not answer; it is tried again by itself.', suggest: 'nothing, unless it repeats; then look at the store' },
  EnvironmentBroken: { cause: 'The Python environment of the job does not fit: a package, a library, a driver or a limit of the system.', suggest: 'run cpt doctor --fix where the job runs, then retry' },
  NodeTrouble: { cause: 'A machine, a GPU or the link between the processes of a job failed; it is tried again by itself.', suggest: 'nothing, unless it repeats; then retry with the machine in placement.excludeNodes as patch' },
  NoProgress: { cause: 'The job stood still longer than placement.noProgressSeconds and was stopped; it is tried again by itself.', suggest: 'nothing, unless it repeats; then read the stack dump in the log' },
  JobCrashed: { cause: 'The job crashed in native code; it is tried again by itself.', suggest: 'nothing, unless it repeats; then read the log tail' },
  CancelledOutside: { cause: 'Somebody cancelled the job at the scheduler, not here.', suggest: 'ask who and why, then retry or abort' },
  SchedulerRefused: { cause: 'The scheduler will not run the job as it is asked for: account, partition, limit or licence.', suggest: 'mend the pool in the configuration, or retry with another placement.pool as patch' },
  JobEnded: { cause: 'The job ended before its work was committed; it is retried by itself.', suggest: 'nothing, unless it repeats' },
  Aborted: { cause: 'An operator chose to abort.', suggest: 'start again when the cause is mended' },
  GateFailed: { cause: 'A condition of the gate does not hold: too much was lost, too little gained, or the evidence does not settle it.', suggest: 'read which one, and by how much; then change what it names' },
} as const
export type FailureType = keyof typeof failures

/** What a failed stage carries as failure details, shown on the run page when it parks. */
export interface FailureEvidence {
  stage: string
  fingerprint: string
  attempts: number
  endClass: string
  /** What the end was taken for, and by which rule (activities/src/classify-failure.ts). */
  failureClass?: string
  rule?: string
  logTail: string[]
}
