import { condition, isCancellation, proxyActivities, setHandler } from '@temporalio/workflow'
import type { ControlActivities, RunIdentity } from '@cpt/contracts/activities'
import type { RunProgress } from '@cpt/contracts/cpt-run'
import { light } from './activity-options.ts'
import { holdSignal, pauseUpdate, resumeUpdate } from './messages.ts'
import { settle } from './parking.ts'

export interface Holding {
  /** Resolves when work may begin: at once, or after `resume` has reached the jobs. */
  open: () => Promise<void>
  /** For a line that came back paused: waits, and lets its jobs begin again. */
  released: (key: string) => Promise<void>
}

/** The updates `pause` and `resume`, and how they reach jobs under way: these leave at their next commit. */
export const openHolding = (run: RunIdentity, progress: RunProgress, changed: () => void): Holding => {
  const toPause = proxyActivities<ControlActivities>({ ...light, summary: 'pause: jobs leave at their next commit' })
  const toResume = proxyActivities<ControlActivities>({ ...light, summary: 'resume' })
  let held: string[] = []
  let told = false
  let telling = false

  /** One change after the other: a resume must not overtake the pause that it takes back. */
  const tellJobs = async (): Promise<void> => {
    if (telling) return
    telling = true
    try {
      while (told !== progress.paused) {
        if (progress.paused) {
          held = progress.stages.filter((s) => s.state === 'running').map((s) => s.key)
          told = true
          if (held.length > 0) await toPause.pauseJobs({ run, keys: held })
        } else {
          if (held.length > 0) await toResume.resumeJobs({ run, keys: held })
          told = false
        }
      }
    } catch (e) {
      // a run that ends stops its jobs itself
      if (!isCancellation(e)) throw e
    } finally {
      telling = false
    }
  }
  const set = (paused: boolean): void => {
    progress.paused = paused
    settle(progress)
    changed()
    void tellJobs()
  }

  setHandler(holdSignal, ({ paused }) => { set(paused) })
  setHandler(pauseUpdate, (by) => {
    const was = progress.paused
    set(true)
    return was ? 'paused already' : `paused${by?.by === undefined ? '' : ` by ${by.by}`}: running jobs leave at their next commit, nothing new begins`
  }, { description: 'Pause: running jobs leave at their next commit, nothing new begins. Example: {"by": "ann"}' })
  setHandler(resumeUpdate, (by) => {
    const was = progress.paused
    set(false)
    return was ? `resumed${by?.by === undefined ? '' : ` by ${by.by}`}` : 'not paused'
  }, { description: 'Go on after a pause, from the last commit. Example: {"by": "ann"}' })

  const open = (): Promise<void> => condition(() => !progress.paused && !told && !telling)
  return {
    open,
    released: async (key) => {
      await open()
      // a mark may be left from before a reset of this run
      await toResume.resumeJobs({ run, keys: [key] })
    },
  }
}
