import type { JobUnit, Placement } from '@cpt/contracts/job'
import type { Stage } from '@cpt/contracts/stage'
import type { LiveLine } from './live-progress.ts'

/** One range of a stage's work, as the watcher needs it. */
export interface RangeWork {
  stage: Stage
  fingerprint: string
  range: number
  request: unknown
  parents: string[]
  placement: Placement
  /** The line of the run that asks, see askerOf. */
  asker: string
  key: string
  decision: number
  /** Units that are not committed yet; null for a whole stage. */
  pending: () => Promise<JobUnit[] | null>
  /** Whether the range's work is committed. */
  isCommitted: () => Promise<boolean>
  /** What is committed so far; changes exactly when something new is. */
  progress: () => Promise<string>
  /** Set when another range of the stage has failed: this one is left running and watched again by the next activity attempt. */
  detach: AbortSignal
  /** Where the numbers of all ranges of the line come together. */
  live: LiveLine
}
