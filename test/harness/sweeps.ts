import { randomUUID } from 'node:crypto'
import type { WorkflowHandle } from '@temporalio/client'
import { askerOf } from '@cpt/activities/claims'
import type { AlmrLrSweepInput, AlmrLrSweepResult } from '@cpt/contracts/almr-lr-sweep'
import type { RunProgress } from '@cpt/contracts/cpt-run'
import { controlQueue } from '@cpt/contracts/ids'
import { parkOf, type RunHandle } from './runs.ts'
import { claimsIn, jobsIn, type ClaimEntry } from './store.ts'
import type { System } from './system.ts'
import { until } from './until.ts'

export type Sweep = WorkflowHandle<(input?: AlmrLrSweepInput) => Promise<AlmrLrSweepResult>>

export const trainKey = 'trial/round-1/train'

export const startSweep = (system: System, input: AlmrLrSweepInput, workflowId = `sweep/small-${randomUUID().slice(0, 8)}`): Promise<Sweep> =>
  system.client.workflow.start('almrLrSweep', { taskQueue: controlQueue, workflowId, args: [input] })

export const trialOf = (system: System, sweep: Pick<Sweep, 'workflowId'>, index: number): RunHandle => system.client.workflow.getHandle(`${sweep.workflowId}/trial-${index}`)

/** Every attempt at the training of any trial. */
export const trainingsIn = async (storeDir: string): Promise<ClaimEntry[]> => (await claimsIn(storeDir)).filter((c) => c.key === trainKey)

/**
 * Kills the first training that a sweep begins as often as it is begun anew, until its trial parks; gives that one's index.
 * The sweep must not save before it is killed.
 */
export const parkFirstTraining = async (system: System, begin: () => Promise<Sweep>): Promise<{ sweep: Sweep; index: number }> => {
  const before = new Set((await trainingsIn(system.storeDir)).map((c) => c.fingerprint))
  const sweep = await begin()
  const { fingerprint, workflow } = await until('the first training', async () => (await trainingsIn(system.storeDir)).find((c) => !before.has(c.fingerprint)) ?? null, 300)
  for (let attempt = 1; attempt <= 3; attempt++) {
    const job = await until(`attempt ${attempt} to run`, async () => (await jobsIn(system.storeDir)).find((j) => j.fingerprint === fingerprint && j.attempt === attempt && j.isRunning) ?? null, 300)
    process.kill(job.started?.pid ?? 0, 'SIGKILL')
  }
  const index = await until('its trial', () => indexOf(system, sweep, workflow), 120)
  await parkOf(trialOf(system, sweep, index), trainKey, 1, 300)
  return { sweep, index }
}

/** Index of the trial that is this asker of its training. */
const indexOf = async (system: System, sweep: Sweep, asker: string): Promise<number | null> => {
  const { stages } = await sweep.query<RunProgress>('progress')
  for (const { key } of stages.filter((s) => s.stage === 'trial')) {
    const index = Number(key.slice('trial-'.length))
    const trial = trialOf(system, sweep, index)
    const { raw } = await trial.describe()
    if (askerOf(trial.workflowId, raw.workflowExecutionInfo?.firstRunId ?? '', trainKey) === asker) return index
  }
  return null
}
