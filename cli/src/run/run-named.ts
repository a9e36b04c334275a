import type { ArtifactStore } from '@cpt/activities/artifact-store/artifact-store'
import type { Config } from '@cpt/activities/config'
import { union, type Marks } from '@cpt/activities/gc/marks'
import { reportedRuns } from '@cpt/activities/gc/reports'
import { marksOfRun } from '@cpt/activities/gc/runs'
import { folderOf } from '@cpt/activities/report/report-folder'
import { CliError } from '../cli-error.ts'
import { connect } from '../connect.ts'
import { idsMeant } from '../startable.ts'
import { findRun } from './find-run.ts'

/** What a person names, and the commits it is about: `name` is fit for a file, `what` for a person. */
export interface Named {
  name: string
  what: string
  marks: Marks
}

/** A run by its report, its history, or both; a report alone needs no server. */
export const runNamed = async (config: Config, store: ArtifactStore, named: string): Promise<Named> => {
  const report = (await reportedRuns(config.reportsDir)).find((r) => idsMeant(named).includes(r.workflowId))
  const remembered = await runRemembered(config, store, named).catch((error: unknown) => {
    if (report !== undefined && error instanceof CliError) return null // no server answers, or it has forgotten the run
    throw error
  })
  const known = [remembered, report].filter((run) => run !== null && run !== undefined)
  const [first] = known
  if (first === undefined) throw new CliError('failed', `${named} is no run that anybody knows`, '`npx cpt report` and `npx cpt status` list them.')
  return { name: folderOf(first), what: first.workflowId, marks: union(...known.map((run) => run.marks)) }
}

const runRemembered = async (config: Config, store: ArtifactStore, named: string): Promise<{ workflowId: string; runId: string; marks: Marks }> => {
  const session = await connect(config)
  try {
    const workflowId = await findRun(session, named)
    const { runId } = await session.client.workflow.getHandle(workflowId).describe()
    return { workflowId, runId, marks: await marksOfRun(session.client, store, workflowId, runId) }
  } finally {
    await session.close()
  }
}
