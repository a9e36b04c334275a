import { CliError, messageOf } from '../cli-error.ts'
import { operator } from '../config.ts'
import { plainText } from '../plain-text.ts'
import { findRun } from './find-run.ts'
import { sendUpdate } from './send-update.ts'
import { withSession } from './with-session.ts'

interface Flags {
  state?: string
}

const update = (name: 'pause' | 'resume', named: string, flags: Flags): Promise<void> =>
  withSession(flags.state, async (session) => {
    const handle = session.client.workflow.getHandle(await findRun(session, named))
    process.stdout.write(`${plainText(await sendUpdate(handle, name, { by: operator() }))}\n`)
  })

export const pause = (named: string, flags: Flags): Promise<void> => update('pause', named, flags)
export const resume = (named: string, flags: Flags): Promise<void> => update('resume', named, flags)

/** Asks for cancellation; the run stops its jobs, which save first, and then ends. */
export const cancel = (named: string, flags: Flags): Promise<void> =>
  withSession(flags.state, async (session) => {
    const id = await findRun(session, named)
    const handle = session.client.workflow.getHandle(id)
    const { status, raw } = await handle.describe()
    if (status.name !== 'RUNNING') throw new CliError('failed', `${id} cannot be cancelled: it is ${status.name.toLowerCase()}`, '`cpt status` shows how it ended.')
    if (raw.workflowExtendedInfo?.cancelRequested === true) return void process.stdout.write(`${id}: told to stop already; \`npx cpt watch ${named}\` shows when it has ended\n`)
    try {
      await handle.cancel()
    } catch (error) {
      throw new CliError('failed', `${id} cannot be cancelled: ${messageOf(error)}`, '`cpt status` shows whether it has ended already.')
    }
    process.stdout.write(`${id}: told to stop; its jobs save and leave. \`npx cpt watch ${named}\` shows when it has ended\n`)
  })
