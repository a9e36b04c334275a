/** The workflow types a worker registers. */
export { jobReaper } from './job-reaper.ts'
export { cptRun } from './cpt-run.ts'
