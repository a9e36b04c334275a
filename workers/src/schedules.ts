import { reaperScheduleId } from '@cpt/contracts/ids'
import type { Config } from '@cpt/activities/config'
import { ScheduleAlreadyRunning, ScheduleOverlapPolicy, type Client } from '@temporalio/client'

/**
 * Puts the reaper on its schedule, as often as one likes. One that is there keeps its state, paused or not; only its
 * period follows the setting. With period 0 nothing is made, and what is there is let alone.
 */
export const scheduleReaper = async (client: Client, { reaperSeconds, queues }: Pick<Config, 'reaperSeconds' | 'queues'>): Promise<void> => {
  if (reaperSeconds === 0) return
  const every = reaperSeconds * 1000
  try {
    await client.schedule.create({
      scheduleId: reaperScheduleId,
      spec: { intervals: [{ every }] },
      policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: '1 minute' },
      action: { type: 'startWorkflow', workflowType: 'jobReaper', workflowId: reaperScheduleId, taskQueue: queues.control, args: [], staticSummary: 'stops jobs whose runs are closed' },
      state: { note: 'Stops jobs whose runs are closed. Pause it here; workers leave that as it is.' },
    })
  } catch (e) {
    if (!(e instanceof ScheduleAlreadyRunning)) throw e
    const schedule = client.schedule.getHandle(reaperScheduleId)
    const { spec } = await schedule.describe()
    if (spec.intervals?.length === 1 && spec.intervals[0]?.every === every) return
    await schedule.update((before) => ({ ...before, spec: { intervals: [{ every }] } }))
  }
}
