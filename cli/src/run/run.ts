import type { CptRunInput } from '@cpt/contracts/cpt-run'
import { runWorkflowId } from '@cpt/contracts/ids'
import { CliError } from '../cli-error.ts'
import { readConfig } from '../config.ts'
import { connect, runPage, type Session } from '../connect.ts'
import { interruption } from '../interruption.ts'
import { tellEnding } from './ending.ts'
import { readRunInput } from './run-input.ts'
import { watch } from './watch.ts'

/** Starts `cptRun`; `attach` takes part in a run of that id that is under way. */
export const startRun = async (session: Session, workflowId: string, input: CptRunInput, onConflict: 'attach' | 'fail'): Promise<void> => {
  const { WorkflowExecutionAlreadyStartedError } = await import('@temporalio/client')
  try {
    await session.client.workflow.start('cptRun', {
      workflowId,
      taskQueue: session.taskQueue,
      args: [input],
      staticSummary: input.name ?? 'cptRun',
      ...(input.description === undefined ? {} : { staticDetails: input.description }),
      workflowIdConflictPolicy: onConflict === 'attach' ? 'USE_EXISTING' : 'FAIL',
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
    })
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error
    throw new CliError('conflict', `${workflowId} is running already: ${runPage(session, workflowId) ?? session.address}`, 'Follow it with `cpt watch`, or give another --name.')
  }
}

export const run = async (file: string | undefined, flags: { set?: string[]; name?: string; detach?: boolean; state?: string }): Promise<void> => {
  const input = readRunInput(file, flags.set ?? [], flags.name)
  const config = readConfig({ stateDir: flags.state })
  const session = await connect(config)
  try {
    const workflowId = runWorkflowId(input.name)
    await startRun(session, workflowId, input, 'fail')
    process.stdout.write(`started ${workflowId}\n${runPage(session, workflowId) ?? ''}\n`)
    if (flags.detach === true) return
    const ending = await watch(session, workflowId, input.name, interruption())
    if (ending.how === 'interrupted') return void process.stdout.write(`${workflowId} goes on; \`npx cpt watch ${input.name}\` follows it, \`npx cpt cancel ${input.name}\` ends it\n`)
    await tellEnding(session, config, workflowId, ending)
  } finally {
    await session.close()
  }
}
