/** Task queue of workflows and light activities, and the queue of activities that watch jobs. */
export const controlQueue = 'cpt'
export const jobsQueue = 'cpt-jobs'
export const defaultNamespace = 'cpt'

/** Workflow id of a run started from the CLI; ids typed in the UI are free text. */
export const runWorkflowId = (name: string): string => `cpt/${name}`

/** The schedule of the reaper, and the beginning of its workflows' ids. */
export const reaperScheduleId = 'job-reaper'

/** Search attributes of every workflow of ours; SQL visibility stores allow ten keywords and three of each other kind. */
export const searchAttributes = {
  CptKind: 'Keyword',
  CptStage: 'Keyword',
  CptStatus: 'Keyword',
  CptModel: 'Keyword',
  CptBackend: 'Keyword',
  CptOwner: 'Keyword',
  CptStep: 'Int',
  CptRecoveries: 'Int',
  CptLoss: 'Double',
  CptAlmr: 'Double',
  CptLr: 'Double',
} as const

/** Memo of a trial: the first run of the sweep that began it, which tells sweeps of one id apart. */
export const trialMemo = 'cptSweepChain'
