import type { Beat, EndRecord, JobRequest } from '@cpt/contracts/job'

/** One attempt at one range of a stage's work, as its folder in the store. */
export interface JobFolder {
  /** Absolute path of the folder; request.json, result.json, beat.json, end.json, lease lie in it. */
  path: string
  fingerprint: string
  range: number
  attempt: number
}

/**
 * `absent`: never started, as far as can be told (submitting again is safe: a job's first act is to claim its start).
 * `gone`: it was started, no process of it is left, and it wrote no end record.
 */
export type JobState = { state: 'absent' } | { state: 'running'; beat: Beat | null } | { state: 'ended'; end: EndRecord } | { state: 'gone' }

/** Where jobs run. One case suite (job-runner.cases.ts) holds for every implementation. */
export interface JobRunner {
  readonly name: 'local'
  /** Starts the attempt; starting it twice runs it once. Throws JobNotStarted when the machine cannot. */
  submit(job: JobFolder, request: JobRequest): Promise<void>
  look(job: JobFolder): Promise<JobState>
  /** Asks the job to save and leave, then makes it; returns when nothing of it is left. */
  stop(job: JobFolder, graceMs: number): Promise<void>
}

/** The machine could not start a process; trying again may help once the cause is mended. */
export class JobNotStarted extends Error {
  override readonly name = 'JobNotStarted'
}
