/** The workflow types a worker registers. */
export { jobReaper } from './job-reaper.ts'
export { cptRun } from './cpt-run.ts'
export { almrLrSweep } from './sweep/almr-lr-sweep.ts'
export { sweepTrial } from './sweep/sweep-trial.ts'
export { corpusPreparation } from './corpus-preparation.ts'
export { modelTransfer } from './transfer/model-transfer.ts'
export { dryTrain } from './dry-train.ts'
