/** The workflow types a worker registers. */
export { cptRun } from './cpt-run.ts'
