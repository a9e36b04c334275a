import { proxyActivities, workflowInfo } from '@temporalio/workflow'
import type { ControlActivities, ResolvedRun } from '@cpt/contracts/activities'
import type { CorpusCommit, PreparedCorpus } from '@cpt/contracts/committed-corpus'
import { light } from './activity-options.ts'
import { effectiveCorpus } from './effective-corpus.ts'
import type { Run } from './run.ts'

/** Commits a prepared corpus under the name that its run gives it; null where it gives none. */
export const commitNamed = async (run: Run, { spec, sources }: ResolvedRun, prepared: PreparedCorpus): Promise<CorpusCommit | null> => {
  const corpus = effectiveCorpus(spec.corpus, run.progress.decisions)
  if (corpus.name === undefined) return null
  const { workflowId, firstExecutionRunId: firstRunId } = workflowInfo()
  const commit = await proxyActivities<ControlActivities>({ ...light, activityId: 'commit-corpus', summary: `corpus ${corpus.name}` })
    .commitCorpus({ name: corpus.name, corpus, sources, prepared, committedBy: { workflowId, firstRunId } })
  run.show('commit-corpus', { stage: 'commit-corpus', state: commit.unchanged ? 'reused' : 'done', note: `${commit.name} #${commit.number}` })
  return commit
}
