import { allHandlersFinished, condition, continueAsNew, workflowInfo } from '@temporalio/workflow'
import type { ResolvedRun } from '@cpt/contracts/activities'
import type { PreparedCorpus } from '@cpt/contracts/committed-corpus'
import type { RunProgress } from '@cpt/contracts/cpt-run'
import type { PerplexityMeasurement } from '@cpt/contracts/evaluate-perplexity'
import type { SyntheticCorpus } from './corpus-preparation.ts'
import type { RoundState } from './cpt-round.ts'
import type { BenchmarkResults } from './evaluation.ts'
import type { Run } from './run.ts'

/** What the rounds stand on. */
export interface Prepared {
  corpus: PreparedCorpus
  synthetic: SyntheticCorpus | null
  ofBase: PerplexityMeasurement
}

/** What one execution of a run hands to the next: the page, the decisions, and where the plan stands. */
export interface Chapter {
  progress: RunProgress
  decisionsKept: { key: string; kind: string; uri: string }[]
  resolved: ResolvedRun
  startedAtMs: number
  prepared: Prepared
  baseBenchmarks: BenchmarkResults
  round: { done: number; state: RoundState }
}

/**
 * Continues as new when the server suggests it, between two rounds. Never while something is parked or paused, a message
 * is being handled, or benchmarks of the base still run beside: then a later round does it.
 */
export const goOn = async (run: Run, input: unknown, carried: Omit<Chapter, 'progress' | 'decisionsKept' | 'baseBenchmarks'>, baseBenchmarks: BenchmarkResults | null): Promise<void> => {
  if (!workflowInfo().continueAsNewSuggested || baseBenchmarks === null) return
  await run.released()
  await condition(allHandlersFinished)
  const { progress, decisionsKept } = run
  await continueAsNew<(input: unknown, chapter: Chapter) => Promise<unknown>>(input, { ...carried, baseBenchmarks, progress: { ...progress, live: null }, decisionsKept })
}
