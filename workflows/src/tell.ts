import { condition, getExternalWorkflowHandle, isCancellation } from '@temporalio/workflow'
import type { Waiting } from '@cpt/contracts/sweep'
import { holdSignal } from './messages.ts'
import type { Run } from './run.ts'

/** A signal to a workflow that may have ended: that it hears nothing any more is no failure of who tells. */
export const told = async (signal: () => Promise<void>): Promise<void> => {
  try {
    await signal()
  } catch (e) {
    if (isCancellation(e)) throw e
  }
}

/** Tells, whenever it changes, for what this workflow waits for a person. Ends by being cancelled. */
export const tellOfParks = async ({ progress }: Run, tell: (waitsFor: Waiting[]) => Promise<void>): Promise<void> => {
  const parks = (): string => progress.parked.map(({ stage, park }) => `${stage} ${park}`).join('\n')
  for (let said = ''; ;) {
    await condition(() => parks() !== said)
    said = parks()
    await tell(progress.parked.map(({ stage, park, type, message, cause, suggest, actions }) => ({ stage, park, type, message: message.slice(0, 2000), cause, suggest, actions })))
  }
}

/** A paused workflow pauses those that it began with it, and lets them go on with it. Ends by being cancelled. */
export const passOnPauses = async ({ progress }: Run, workflowIds: () => readonly string[]): Promise<void> => {
  for (let paused = false; ; paused = !paused) {
    await condition(() => progress.paused !== paused)
    await Promise.all(workflowIds().map((id) => told(() => getExternalWorkflowHandle(id).signal(holdSignal, { paused: !paused }))))
  }
}
