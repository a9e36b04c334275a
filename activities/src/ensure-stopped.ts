import type { ControlActivities } from '@cpt/contracts/activities'
import { askerOf, jobsOfAsker, withdrawAsker } from './claims.ts'
import type { Deps } from './deps.ts'
import { sweepDebris } from './job-debris.ts'

const graceMs = 20_000

/** After a stage was left by any way but success: withdraws the line as asker, and stops its jobs if nobody else wants them. */
export const ensureStopped =
  ({ workDir, runners }: Pick<Deps, 'workDir' | 'runners'>): ControlActivities['ensureStopped'] =>
  async ({ run, key }) => {
    const asker = askerOf(run.workflowId, run.firstRunId, key)
    const stops = (await jobsOfAsker(workDir, asker)).map(async ({ runner, job }) => {
      const { othersAsk } = await withdrawAsker(job, asker)
      const state = othersAsk ? undefined : (await runners[runner]?.look(job))?.state
      if (state === undefined || state === 'absent') return 0
      const isOver = state === 'ended' || state === 'gone'
      if (!isOver) await runners[runner]?.stop(job, graceMs)
      await sweepDebris(job)
      return isOver ? 0 : 1
    })
    return { stopped: (await Promise.all(stops)).reduce<number>((a, b) => a + b, 0) }
  }
