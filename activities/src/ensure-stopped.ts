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
      const its = runners[runner]
      // another worker may know it: Temporal tries again
      if (its === undefined) throw new Error(`ensureStopped: the job ${job.path} runs on ${runner}, but this worker knows ${Object.keys(runners).join(', ')}: start a worker that is configured for it`)
      const { othersAsk } = await withdrawAsker(job, asker)
      if (othersAsk) return 0
      const { state } = await its.look(job)
      const isOver = state === 'ended' || state === 'gone'
      // what nobody has seen yet may be on its way: it finds that it is not wanted
      if (!isOver) await its.stop(job, graceMs)
      await sweepDebris(job)
      return isOver || state === 'absent' ? 0 : 1
    })
    return { stopped: (await Promise.all(stops)).reduce<number>((a, b) => a + b, 0) }
  }
