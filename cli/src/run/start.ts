import { readConfig } from '../config.ts'
import { CliError } from '../cli-error.ts'
import { connect, runPage, type Session } from '../connect.ts'
import { interruption } from '../interruption.ts'
import { workflowIdOf, type InputOf, type Startable } from '../startable.ts'
import { tellEnding } from './ending.ts'
import { readInput } from './run-input.ts'
import { watch } from './watch.ts'

export interface StartFlags {
  set?: string[]
  name?: string
  detach?: boolean
  state?: string
}

/** Starts a workflow with one JSON object; `attach` takes part in one of that id that is under way. */
export const start = async <T extends Startable>(session: Session, type: T, workflowId: string, input: InputOf<T>, onConflict: 'attach' | 'fail'): Promise<void> => {
  const { WorkflowExecutionAlreadyStartedError } = await import('@temporalio/client')
  try {
    await session.client.workflow.start(type, {
      workflowId,
      taskQueue: session.taskQueue,
      args: [input],
      staticSummary: input.name ?? type,
      ...(input.description === undefined ? {} : { staticDetails: input.description }),
      workflowIdConflictPolicy: onConflict === 'attach' ? 'USE_EXISTING' : 'FAIL',
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
    })
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error
    throw new CliError('conflict', `${workflowId} is running already: ${runPage(session, workflowId) ?? session.address}`, 'Follow it with `cpt watch`, or give another --name.')
  }
}

/** Starts what a file and flags say, and follows it until it ends. */
export const startAndWatch = async (type: Startable, file: string | undefined, flags: StartFlags): Promise<void> => {
  const input = readInput(type, file, flags.set ?? [], flags.name)
  const config = readConfig({ stateDir: flags.state })
  const session = await connect(config)
  try {
    const workflowId = workflowIdOf(type, input.name)
    await start(session, type, workflowId, input, 'fail')
    process.stdout.write(`started ${workflowId}\n${runPage(session, workflowId) ?? ''}\n`)
    if (flags.detach === true) return
    const ending = await watch(session, workflowId, workflowId, interruption())
    if (ending.how === 'interrupted') return void process.stdout.write(`${workflowId} goes on; \`npx cpt watch ${workflowId}\` follows it, \`npx cpt cancel ${workflowId}\` ends it\n`)
    await tellEnding(session, config, workflowId, ending)
  } finally {
    await session.close()
  }
}
