import type { Beat, EndRecord, JobRequest, RunnerName } from '@cpt/contracts/job'

/** One attempt at one range of a stage's work, as its folder on a disk that the worker and the job's host both see. */
export interface JobFolder {
  /** Absolute path of the folder; request.json, result.json, beat.json, end.json, lease lie in it. */
  path: string
  fingerprint: string
  range: number
  attempt: number
}

/**
 * `absent`: never started, as far as can be told (submitting again is safe: a job's first act is to claim its start).
 * `waiting`: a scheduler has it and says why it does not run yet.
 * `unknown`: nobody could be asked; that is no failure of the job. Where `letLeaseRun`, its lease is not renewed meanwhile.
 * `gone`: it was started, nothing of it is left, and it wrote no end record; `end` is what its runner can say of that.
 */
export type JobState =
  | { state: 'absent' }
  | { state: 'waiting'; reason: string }
  | { state: 'running'; beat: Beat | null }
  | { state: 'unknown'; why: string; letLeaseRun?: true }
  | { state: 'ended'; end: EndRecord }
  | { state: 'gone'; end: LastWords }

/** How a job ended that could not say so itself. */
export type LastWords = Pick<EndRecord, 'endClass' | 'message' | 'exitCode' | 'signal' | 'scheduler'>

/** Where jobs run. One case suite (job-runner.cases.ts) holds for every implementation. */
export interface JobRunner {
  readonly name: RunnerName
  /** Starts the attempt; starting it twice runs it once. Throws JobNotStarted when the machine cannot. */
  submit(job: JobFolder, request: JobRequest): Promise<void>
  look(job: JobFolder): Promise<JobState>
  /** Asks the job to save and leave, then makes it; returns when nothing of it is left. */
  stop(job: JobFolder, graceMs: number): Promise<void>
  /** Has each process of a job that stands still write the stacks of its threads to the job's log; one that cannot is named there. */
  dumpStacks(job: JobFolder): Promise<void>
}

/** The machine could not start a process; trying again may help once the cause is mended. */
export class JobNotStarted extends Error {
  override readonly name = 'JobNotStarted'
}
