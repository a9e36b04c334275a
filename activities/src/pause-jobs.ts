import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { ControlActivities } from '@cpt/contracts/activities'
import { askerOf, jobsOfAsker } from './claims.ts'
import type { Deps } from './deps.ts'
import { holdAsker, holdJob, isWantedByOthers, releaseAsker, releaseJob } from './hold.ts'

/** Tells the jobs of these lines to leave at their next commit, but for those that somebody else wants too. */
export const pauseJobs =
  ({ workDir }: Pick<Deps, 'workDir'>): ControlActivities['pauseJobs'] =>
  async ({ run, keys }) => {
    const told = await Promise.all(keys.map(async (key) => {
      const asker = askerOf(run.workflowId, run.firstRunId, key)
      // held first, asked then: a watcher enters its job before it looks whether it is held
      await holdAsker(workDir, asker)
      const jobs = (await jobsOfAsker(workDir, asker)).filter(({ job }) => !existsSync(join(job.path, 'end.json')))
      return await Promise.all(jobs.map(async ({ job }) => {
        if (await isWantedByOthers(workDir, job, asker)) return { paused: 0, shared: 1 }
        await holdJob(job)
        return { paused: 1, shared: 0 }
      }))
    }))
    return told.flat().reduce((sum, t) => ({ paused: sum.paused + t.paused, shared: sum.shared + t.shared }), { paused: 0, shared: 0 })
  }

/** Takes that back: jobs which have not noticed yet go on, and new ones may begin. */
export const resumeJobs =
  ({ workDir }: Pick<Deps, 'workDir'>): ControlActivities['resumeJobs'] =>
  async ({ run, keys }) => {
    await Promise.all(keys.map(async (key) => {
      const asker = askerOf(run.workflowId, run.firstRunId, key)
      await releaseAsker(workDir, asker)
      await Promise.all((await jobsOfAsker(workDir, asker)).map(({ job }) => releaseJob(job)))
    }))
  }
