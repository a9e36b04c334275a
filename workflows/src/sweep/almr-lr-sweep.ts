import { allHandlersFinished, CancellationScope, condition, continueAsNew, ContinueAsNew, proxyActivities, workflowInfo } from '@temporalio/workflow'
import { AlmrLrSweepInput, type AlmrLrSweepResult } from '@cpt/contracts/almr-lr-sweep'
import type { ControlActivities, ResolvedSweep } from '@cpt/contracts/activities'
import { SweepVerdict } from '@cpt/contracts/sweep'
import { light } from '../activity-options.ts'
import type { Chapter, Prepared } from '../chapter.ts'
import { prepareCorpus, prepareSynthetic } from '../corpus-preparation.ts'
import { parseInput } from '../parse.ts'
import { openRun, type Run } from '../run.ts'
import { chooseCell } from './choose.ts'
import { trialsOf } from './grid.ts'
import { balance, openLedger } from './ledger.ts'
import { lossesOf } from './measure.ts'
import { openTrials, type Trials } from './trials.ts'

/** What one execution of a sweep hands to the next. */
interface SweepChapter extends Pick<Chapter, 'progress' | 'decisionsKept'> {
  resolved: ResolvedSweep
  prepared: Prepared
  trials: Trials
}

/**
 * ALMR × peak learning rate × seeds on a proxy (arXiv:2409.06624): the corpus is prepared and the base measured once, each
 * point of the grid is trained by a workflow of its own, and the best of what forgets little enough is chosen. Takes one
 * JSON object (AlmrLrSweepInput); nothing at all sweeps the preset.
 */
export async function almrLrSweep(input?: unknown, chapter?: SweepChapter): Promise<AlmrLrSweepResult> {
  const given = parseInput(AlmrLrSweepInput, input ?? {}) as AlmrLrSweepInput
  const run = openRun('almrLrSweep', chapter)
  const resolved = chapter?.resolved ?? await proxyActivities<ControlActivities>({ ...light, activityId: 'resolve-sweep', summary: 'preset, grid, files' }).resolveSweep(given)
  const { sweep, run: shared } = resolved
  const trials = openTrials(run, sweep, shared, chapter?.trials ?? { ledger: openLedger(sweep.budgetGpuSeconds), begun: [], open: {}, outcomes: [] })
  describe(run, resolved)
  try {
    const prepared = chapter?.prepared ?? await prepare(run, resolved)
    await trials.work(prepared, async () => {
      if (!workflowInfo().continueAsNewSuggested) return
      await condition(allHandlersFinished)
      const { progress, decisionsKept } = run
      await continueAsNew<(input: unknown, chapter: SweepChapter) => Promise<AlmrLrSweepResult>>(input, { progress: { ...progress, live: null }, decisionsKept, resolved, prepared, trials: trials.state })
    })
    const outcomes = trials.outcomes()
    const inputs = { trials: outcomes, base: lossesOf(prepared.ofBase.strata, shared.spec.targetLanguage), settings: sweep.choice }
    const verdict = await run.decide('choice', 'choice', inputs, chooseCell(inputs.trials, inputs.base, inputs.settings), SweepVerdict)
    const complete = verdict.missing.length === 0
    run.finish(verdict.chosen === null ? 'failed' : 'done', [...verdict.words, balance(trials.state.ledger)].join('\n\n'))
    return {
      state: complete ? 'complete' : 'needs-attention', verdict, verdictUri: run.decisionsKept.at(-1)?.uri ?? '',
      trials: outcomes.map(({ index, point, status, workflowId }) => ({ index, point, status, workflowId })),
    }
  } catch (e) {
    if (!(e instanceof ContinueAsNew)) await CancellationScope.nonCancellable(() => Promise.resolve(run.finish('failed', 'Ended without a verdict')))
    throw e
  }
}

const prepare = async (run: Run, { run: shared }: ResolvedSweep): Promise<Prepared> => {
  const { spec, base } = shared
  const synthetic = await prepareSynthetic(run, shared)
  const corpus = await prepareCorpus(run, shared)
  const validation = { sets: corpus.validation, windowTokens: spec.evaluation.windowTokens, maxTokensPerDoc: spec.evaluation.maxTokensPerDoc }
  const { measurement: ofBase } = await run.stage('base/perplexity', 'evaluatePerplexity', { model: base, validation, dtype: spec.training.dtype }, { placement: spec.placement.train })
  return { corpus, synthetic, ofBase }
}

const describe = (run: Run, { sweep, run: { spec, parameters } }: ResolvedSweep): void => {
  const { almr, peakLrs, seeds } = sweep.grid
  run.describe({
    model: spec.base.model.slice(0, 100), owner: sweep.owner, backend: spec.placement.train.runner, almr: Math.max(...almr), lr: Math.max(...peakLrs),
    lines: [`${sweep.name}: ALMR 0, ${almr.join(', ')} × peak LR ${peakLrs.join(', ')} × ${seeds.length} seeds = ${trialsOf(sweep.grid).length} trials of ${sweep.tokensPerTrial} tokens on ${spec.base.model.replace(/[^\w:/.-]/g, ' ')} (${parameters} parameters), ${sweep.parallel} at a time`],
  })
}
