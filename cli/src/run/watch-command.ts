import { readConfig } from '../config.ts'
import { connect } from '../connect.ts'
import { interruption } from '../interruption.ts'
import { tellEnding } from './ending.ts'
import { findRun } from './find-run.ts'
import { watch } from './watch.ts'

export const watchCommand = async (named: string, flags: { state?: string }): Promise<void> => {
  const config = readConfig({ stateDir: flags.state })
  const session = await connect(config)
  try {
    const workflowId = await findRun(session, named)
    const ending = await watch(session, workflowId, named, interruption())
    if (ending.how !== 'interrupted') await tellEnding(session, config, workflowId, ending)
  } finally {
    await session.close()
  }
}
