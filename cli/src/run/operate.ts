import { CliError, messageOf } from '../cli-error.ts'
import { operator } from '../config.ts'
import { plainText } from '../plain-text.ts'
import { findRun } from './find-run.ts'
import { withSession } from './with-session.ts'

interface Flags {
  state?: string
}

const update = (name: 'pause' | 'resume', named: string, flags: Flags): Promise<void> =>
  withSession(flags.state, async (session) => {
    const id = await findRun(session, named)
    try {
      const answer = await session.client.workflow.getHandle(id).executeUpdate<unknown, [{ by: string }]>(name, { args: [{ by: operator() }] })
      process.stdout.write(`${plainText(typeof answer === 'string' ? answer : `${id}: ${name} accepted`)}\n`)
    } catch (error) {
      throw new CliError('failed', `${id} did not take ${name}: ${messageOf(error instanceof Error && error.cause !== undefined ? error.cause : error)}`, '`cpt status` shows what it does.')
    }
  })

export const pause = (named: string, flags: Flags): Promise<void> => update('pause', named, flags)
export const resume = (named: string, flags: Flags): Promise<void> => update('resume', named, flags)

/** Asks for cancellation; the run stops its jobs, which save first, and then ends. */
export const cancel = (named: string, flags: Flags): Promise<void> =>
  withSession(flags.state, async (session) => {
    const id = await findRun(session, named)
    try {
      await session.client.workflow.getHandle(id).cancel()
    } catch (error) {
      throw new CliError('failed', `${id} cannot be cancelled: ${messageOf(error)}`, '`cpt status` shows whether it has ended already.')
    }
    process.stdout.write(`${id}: told to stop; its jobs save and leave. \`npx cpt watch ${named}\` shows when it has ended\n`)
  })
