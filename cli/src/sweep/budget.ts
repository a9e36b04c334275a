import { operator } from '../config.ts'
import { plainText } from '../plain-text.ts'
import { findRun } from '../run/find-run.ts'
import { sendUpdate } from '../run/send-update.ts'
import { withSession } from '../run/with-session.ts'

/** Sets what a sweep may spend, in GPU-seconds; null takes the limit away. */
export const budget = (named: string, gpuSeconds: number | null, flags: { state?: string }): Promise<void> =>
  withSession(flags.state, async (session) => {
    const handle = session.client.workflow.getHandle(await findRun(session, named))
    process.stdout.write(`${plainText(await sendUpdate(handle, 'setBudget', { gpuSeconds, by: operator() }))}\n`)
  })
