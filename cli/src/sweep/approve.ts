import { operator } from '../config.ts'
import { plainText } from '../plain-text.ts'
import { findRun } from '../run/find-run.ts'
import { sendUpdate } from '../run/send-update.ts'
import { withSession } from '../run/with-session.ts'

/** Answers a transfer that waits with its evidence: the target is trained, or (`refuse`) the transfer ends without a run. */
export const approve = (named: string, flags: { refuse?: boolean; reason: string; state?: string }): Promise<void> =>
  withSession(flags.state, async (session) => {
    const handle = session.client.workflow.getHandle(await findRun(session, named))
    process.stdout.write(`${plainText(await sendUpdate(handle, 'approve', { approved: flags.refuse !== true, reason: flags.reason, by: operator() }))}\n`)
  })
