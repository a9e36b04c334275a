import { CptRunResult } from '@cpt/contracts/cpt-run'
import { CliError } from '../cli-error.ts'
import { readConfig } from '../config.ts'
import { plainText } from '../plain-text.ts'
import { runningUp } from '../up/up-record.ts'
import { findRun } from './find-run.ts'
import { withSession } from './with-session.ts'

/** Where the report of a run lies; without a run, the folder and address of all reports. */
export const report = async (named: string | undefined, flags: { state?: string }): Promise<void> => {
  if (named === undefined) {
    const config = readConfig({ stateDir: flags.state })
    const up = runningUp(config.stateDir)
    return void process.stdout.write(`${config.reportsDir}\n${up === null ? 'not served at the moment; `npx cpt up` serves them' : up.reportsUrl}\n`)
  }
  await withSession(flags.state, async (session) => {
    const id = await findRun(session, named)
    const handle = session.client.workflow.getHandle(id)
    const { status } = await handle.describe()
    if (status.name !== 'COMPLETED') throw new CliError('failed', `${id} is ${status.name.toLowerCase()}: a run writes its report when it completes`, '`cpt status` shows how far it is.')
    process.stdout.write(`${plainText(CptRunResult.parse(await handle.result()).report)}\n`)
  })
}
