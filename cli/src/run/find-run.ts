import { runWorkflowId } from '@cpt/contracts/ids'
import { CliError } from '../cli-error.ts'
import type { Session } from '../connect.ts'

/** The workflow id that a person means: a run's name, or an id typed in the UI. */
export const findRun = async ({ client, namespace }: Session, named: string): Promise<string> => {
  const { WorkflowNotFoundError } = await import('@temporalio/client')
  const candidates = named.includes('/') ? [named] : [runWorkflowId(named), named]
  for (const id of candidates) {
    try {
      await client.workflow.getHandle(id).describe()
      return id
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw error
    }
  }
  throw new CliError('failed', `no run ${candidates.join(' or ')} in namespace ${namespace}`, '`cpt status` lists the runs.')
}
