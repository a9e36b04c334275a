import { CliError } from '../cli-error.ts'
import type { Session } from '../connect.ts'
import { idsMeant } from '../startable.ts'

/** The workflow id that a person means: the name of a run, a sweep or a trial of it (`<sweep>/trial-3`), or an id typed in the UI. */
export const findRun = async ({ client, namespace }: Session, named: string): Promise<string> => {
  const { WorkflowNotFoundError } = await import('@temporalio/client')
  const isThere = async (id: string): Promise<boolean> => {
    try {
      await client.workflow.getHandle(id).describe()
      return true
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) throw error
      return false
    }
  }
  const candidates = idsMeant(named)
  const there = await Promise.all(candidates.map(isThere))
  const [found, ...others] = candidates.filter((_, i) => there[i])
  if (found === undefined) throw new CliError('failed', `no run ${candidates.join(' or ')} in namespace ${namespace}`, '`cpt status` lists the runs.')
  // what is called just so goes first; between a run and a sweep of one name nobody may guess
  if (others.length > 0 && found !== named) throw new CliError('usage', `${named} may be ${[found, ...others].join(' or ')}`, 'Give the whole id.')
  return found
}
