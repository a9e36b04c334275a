import { allHandlersFinished, condition, continueAsNew, ContinueAsNew, proxyActivities, workflowInfo, CancellationScope } from '@temporalio/workflow'
import { AlmrLrSweepInput, type AlmrLrSweepResult } from '@cpt/contracts/almr-lr-sweep'
import type { ControlActivities, ResolvedSweep } from '@cpt/contracts/activities'
import type { ArtifactRef } from '@cpt/contracts/artifact'
import type { SweepVerdict } from '@cpt/contracts/sweep'
import { light } from '../activity-options.ts'
import type { Chapter, Prepared } from '../chapter.ts'
import { commitNamed } from '../commit-named.ts'
import { parseInput } from '../parse.ts'
import { openRun, type Run } from '../run.ts'
import { chooseCell } from './choose.ts'
import { startOrder, trialsOf } from './grid.ts'
import { balance } from './ledger.ts'
import { lossesOf } from './measure.ts'
import { prepareTrials } from './prepare-trials.ts'
import { noTrials, openTrials, type Trials, type Window } from './trials.ts'

/** What one execution of a sweep hands to the next. */
interface SweepChapter extends Pick<Chapter, 'progress' | 'decisionsKept' | 'startedAtMs'> {
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
  const startedAtMs = chapter?.startedAtMs ?? Date.now()
  const resolved = chapter?.resolved ?? await proxyActivities<ControlActivities>({ ...light, activityId: 'resolve-sweep', summary: 'preset, grid, files' }).resolveSweep(given)
  const { sweep, run: shared } = resolved
  const trials = openTrials(run, { points: trialsOf(sweep.grid), order: startOrder(sweep.grid), sweep, shared }, chapter?.trials ?? noTrials(sweep.budgetGpuSeconds))
  describe(run, resolved)
  const unchanged = chapter === undefined && sweep.whenUnchanged === 'end' ? await unchangedSince(run, resolved) : null
  if (unchanged !== null) return unchanged

  const page: Page = { run, resolved, startedAtMs, trials, prepared: chapter?.prepared ?? null }
  try {
    const prepared = page.prepared ??= await prepareTrials(run, shared)
    if (chapter === undefined) await commitNamed(run, shared, prepared.corpus)
    await trials.work(prepared, async () => {
      if (!workflowInfo().continueAsNewSuggested) return
      await condition(allHandlersFinished)
      const { progress, decisionsKept } = run
      await continueAsNew<(input: unknown, chapter: SweepChapter) => Promise<AlmrLrSweepResult>>(input, { progress: { ...progress, live: null }, decisionsKept, startedAtMs, resolved, prepared, trials: trials.state })
    })
    return await conclude(page, prepared)
  } catch (e) {
    if (!(e instanceof ContinueAsNew)) await CancellationScope.nonCancellable(() => reportWithoutVerdict(page))
    throw e
  }
}

/** What the page and the report of a sweep are made from. */
interface Page {
  run: Run
  resolved: ResolvedSweep
  startedAtMs: number
  trials: Window
  prepared: Prepared | null
}

/** Ends the sweep at once where the very same has been swept before. */
const unchangedSince = async (run: Run, resolved: ResolvedSweep): Promise<AlmrLrSweepResult | null> => {
  const before = await proxyActivities<ControlActivities>({ ...light, activityId: 'swept-before', summary: 'the same, swept before?' }).sweptBefore(resolved)
  if (before === null) return null
  const { workflowId, ...result } = before
  run.finish('done', `Unchanged: the very same was swept by \`${workflowId.replaceAll('`', ' ')}\`, and nothing is new. ${result.verdict.words[0] ?? ''}`)
  return { state: 'unchanged', ...result }
}

/** The choice among what was measured, kept as an artifact, and the report. */
const conclude = async (page: Page, prepared: Prepared): Promise<AlmrLrSweepResult> => {
  const { run, resolved: { sweep, run: shared }, trials } = page
  const { workflowId } = workflowInfo()
  const outcomes = trials.outcomes()
  const chosen = chooseCell(outcomes, lossesOf(prepared.ofBase.strata, shared.spec.targetLanguage), sweep.choice)
  const { commitVerdict, rememberSweep } = proxyActivities<ControlActivities>({ ...light, summary: 'verdict' })
  const { verdict, verdictRef } = await commitVerdict({ format: 'cpt-verdict-file/1', workflowId, sweep, run: shared, trials: outcomes, verdict: { ...chosen, words: [...chosen.words, `Budget: ${balance(trials.state.ledger)}.`] } })
  const report = await writeReport(page, verdict, verdictRef)
  await rememberSweep({ resolved: page.resolved, verdict: verdictRef, workflowId, report: report.path })
  run.finish('done', [...verdict.words, `Verdict: \`${verdictRef.uri}\`, sha256 \`${verdictRef.sha256}\``, `Report: ${report.url}`].join('\n\n'))
  return {
    state: verdict.missing.length === 0 ? 'complete' : 'needs-attention', verdict, verdictRef, report: report.path,
    trials: outcomes.map(({ index, point, status, workflowId: its }) => ({ index, point, status, workflowId: its })),
  }
}

const writeReport = async ({ run, resolved, startedAtMs, trials, prepared }: Page, verdict: SweepVerdict | null, verdictRef: ArtifactRef | null): Promise<{ path: string; url: string }> => {
  const { workflowId, runId } = workflowInfo()
  const base = prepared === null ? null : lossesOf(prepared.ofBase.strata, resolved.run.spec.targetLanguage)
  return await proxyActivities<ControlActivities>({ ...light, activityId: 'report', summary: 'report', scheduleToCloseTimeout: '1 hour' }).writeSweepReport({
    workflowId, runId, startedAtMs, resolved, base, trials: trials.outcomes(), verdict, verdictRef, ledger: trials.state.ledger, lines: run.progress.stages, decisions: run.decisionsKept, operator: run.progress.decisions,
  })
}

/** That a report cannot be written must not hide why the sweep ended. */
const reportWithoutVerdict = async (page: Page): Promise<void> => {
  try {
    const { url } = await writeReport(page, null, null)
    page.run.finish('failed', `Ended without a verdict. Report: ${url}`)
  } catch (e) {
    page.run.finish('failed', `Ended without a verdict, and no report could be written: ${e instanceof Error ? e.message : String(e)}`)
  }
}

const describe = (run: Run, { sweep, run: { spec, parameters, corpus } }: ResolvedSweep): void => {
  const { almr, peakLrs, seeds } = sweep.grid
  run.describe({
    model: spec.base.model.slice(0, 100), owner: sweep.owner, backend: spec.placement.train.runner, almr: Math.max(...almr), lr: Math.max(...peakLrs),
    lines: [`${sweep.name}: ALMR 0, ${almr.join(', ')} × peak LR ${peakLrs.join(', ')} × ${seeds.length} seeds = ${trialsOf(sweep.grid).length} trials of ${sweep.tokensPerTrial} tokens on ${spec.base.model.replace(/[^\w:/.-]/g, ' ')} (${parameters} parameters)${corpus === undefined ? '' : `, corpus ${corpus.name} #${corpus.number}`}, ${sweep.parallel} at a time`],
  })
}
