import { CancellationScope, ContinueAsNew, getExternalWorkflowHandle, proxyActivities, workflowInfo } from '@temporalio/workflow'
import type { ControlActivities, ResolvedRun } from '@cpt/contracts/activities'
import { CptRunInput, type CptRunResult } from '@cpt/contracts/cpt-run'
import { needsOf } from '@cpt/contracts/stages-off'
import { light } from './activity-options.ts'
import { goOn, type Chapter, type Prepared } from './chapter.ts'
import { commitNamed } from './commit-named.ts'
import { prepareCorpus, prepareSynthetic, validationSetsOf } from './corpus-preparation.ts'
import { cptRound, type RoundSetting, type RoundState } from './cpt-round.ts'
import { compareBenchmarks, evaluateBenchmarks, gate, type BenchmarkResults } from './evaluation.ts'
import { runParkedSignal } from './messages.ts'
import { parseInput, refuseInput } from './parse.ts'
import { openRun, type Run } from './run.ts'
import { tellOfParks, told } from './tell.ts'
import { acrossTokenizers, withVocabulary } from './with-vocabulary.ts'

/**
 * The lifecycle of a continual pre-training: prepare the corpus, measure the base, train round by round with the mixture
 * reweighted in between, evaluate, gate, export, report. Takes one JSON object (CptRunInput); nothing at all runs the
 * quickstart preset. A run of many rounds continues as new between two of them; `chapter` is what it carries. A transfer gives
 * the run as it was resolved and confirmed (`known`): its files are not looked for again.
 */
export async function cptRun(input?: unknown, chapter?: Chapter, known?: ResolvedRun): Promise<CptRunResult> {
  const given = parseInput(CptRunInput, input ?? {}) as CptRunInput
  const run = openRun('cptRun', chapter)
  const found = chapter?.resolved ?? known ?? await proxyActivities<ControlActivities>({ ...light, activityId: 'resolve-input', summary: 'presets, defaults, files' }).resolveInput(given)
  refuseInput(needsOf(found.spec, found.corpus !== undefined))
  describe(run, found)
  const startedAtMs = chapter?.startedAtMs ?? Date.now()
  tellParent(run)
  // a branch must not outlive the run: whatever ends the main line withdraws the others, and waits until their jobs are gone
  return await CancellationScope.cancellable(async () => {
    const branches: Promise<unknown>[] = []
    try {
      const resolved = await withVocabulary(run, found)
      const beside: Beside = (promise) => {
        promise.catch(() => undefined)
        branches.push(promise)
        return promise
      }
      const { prepared, baseBenchmarks } = await begun(run, resolved, chapter, beside)
      let round = chapter?.round ?? startOf(resolved, prepared)
      for (const setting of roundsOf(resolved).slice(round.done)) {
        round = { done: round.done + 1, state: await cptRound(run, resolved, { ...setting, ...prepared }, round.state) }
        await goOn(run, input, { resolved, startedAtMs, prepared, round }, baseBenchmarks.now())
      }
      return await conclude(run, resolved, startedAtMs, prepared, round.state, await baseBenchmarks.result, beside)
    } catch (e) {
      if (e instanceof ContinueAsNew) throw e
      CancellationScope.current().cancel()
      await Promise.allSettled(branches)
      await CancellationScope.nonCancellable(() => reportFailed(run, found, startedAtMs))
      throw e
    }
  })
}

/** Whoever began this run, as a transfer does, has its parks on the own page too. */
const tellParent = (run: Run): void => {
  const { parent, workflowId } = workflowInfo()
  if (parent === undefined) return
  tellOfParks(run, (waitsFor) => told(() => getExternalWorkflowHandle(parent.workflowId).signal(runParkedSignal, { workflowId, waitsFor }))).catch(() => undefined)
}

type Beside = <T>(promise: Promise<T>) => Promise<T>

/** Benchmarks of the base, measured beside everything else; `now` tells what is known without waiting. */
interface BaseBenchmarks {
  result: Promise<BenchmarkResults>
  now: () => BenchmarkResults | null
}

/** What comes before the rounds: made, or carried over from the execution before. */
const begun = async (run: Run, resolved: ResolvedRun, chapter: Chapter | undefined, beside: Beside): Promise<{ prepared: Prepared; baseBenchmarks: BaseBenchmarks }> => {
  if (chapter !== undefined) return { prepared: chapter.prepared, baseBenchmarks: { result: Promise.resolve(chapter.baseBenchmarks), now: () => chapter.baseBenchmarks } }
  const { spec, base } = resolved
  let known: BenchmarkResults | null = null
  const result = beside(evaluateBenchmarks(run, 'base', base, resolved).then((r) => (known = r)))
  const syntheticReady = beside(prepareSynthetic(run, resolved))
  const corpus = await prepareCorpus(run, resolved)
  await commitNamed(run, resolved, corpus)
  const validation = { sets: validationSetsOf(corpus), windowTokens: spec.evaluation.windowTokens, maxTokensPerDoc: spec.evaluation.maxTokensPerDoc }
  const { measurement: ofBase } = await run.stage('base/perplexity', 'evaluatePerplexity', { model: base, validation, dtype: spec.training.dtype }, { placement: spec.placement.train })
  return { prepared: { corpus, synthetic: await syntheticReady, ofBase }, baseBenchmarks: { result, now: () => known } }
}

const startOf = ({ base, extended = base }: ResolvedRun, { ofBase }: Prepared): Chapter['round'] => ({
  done: 0, state: { start: { kind: 'model', model: extended }, model: extended, trainedTokens: 0, drawn: null, topics: {}, measurement: ofBase },
})

/** All rounds of the plan in order; a round is a whole number of global batches. */
const roundsOf = ({ spec }: ResolvedRun): Pick<RoundSetting, 'stage' | 'round' | 'roundTokens' | 'totalTokens'>[] => {
  const batch = spec.training.globalBatchTokens
  const rounds = spec.plan.flatMap((stage) => Array.from({ length: stage.rounds }, (_, i) => ({ stage, round: i + 1, roundTokens: Math.floor(stage.tokens / stage.rounds / batch) * batch })))
  const totalTokens = rounds.reduce((sum, r) => sum + r.roundTokens, 0)
  return rounds.map((r) => ({ ...r, totalTokens }))
}

/** What comes after the rounds: evaluation against the base, the gate, the exported model, the report. */
const conclude = async (run: Run, resolved: ResolvedRun, startedAtMs: number, { corpus, ofBase }: Prepared, state: RoundState, baseBenchmarks: BenchmarkResults, beside: Beside): Promise<CptRunResult> => {
  const { spec, base } = resolved
  const finalBenchmarks = beside(evaluateBenchmarks(run, 'final', state.model, resolved))
  const change = await run.stage('final/compare-perplexity', 'comparePerplexity', { before: ofBase.perDoc, after: state.measurement.perDoc, ...acrossTokenizers(resolved) }, { placement: spec.placement.data })
  const differences = await compareBenchmarks(run, baseBenchmarks, await finalBenchmarks, resolved)
  const verdict = await gate(run, change, differences, spec.targetLanguage, spec.gate)

  const refused = verdict !== 'pass' && run.progress.decisions.some((d) => d.stage === 'gate' && d.action === 'abort')
  const exported = refused ? null : await run.stage('export-model', 'exportModel', {
    model: state.model,
    base,
    card: { title: `${spec.name}: ${spec.base.model} adapted to ${spec.targetLanguage}`, language: [...new Set(corpus.counts.map((c) => c.language))].sort(), license: spec.base.license, summary: spec.description },
    lineage: [{ what: 'base model', ...placed(base) }, { what: 'corpus', ...placed(corpus.pool.corpus) }, { what: 'validation sets', ...placed(validationSetsOf(corpus)) }, ...(state.drawn === null ? [] : [{ what: 'last token plan', ...placed(state.drawn) }]), { what: 'trained model', ...placed(state.model) }, ...(spec.lineage ?? [])],
  }, { placement: spec.placement.data, note: (r) => `${r.parameters} parameters` })

  const report = await writeReport(run, resolved, startedAtMs, verdict, exported?.path ?? null)
  run.finish(exported === null ? 'failed' : 'done', `Report: ${report.url}`)
  return {
    verdict,
    model: exported?.path ?? null,
    report: report.path,
    tokens: state.trainedTokens,
    change: change.groups.map(({ group, nllBefore, nllAfter, deltaNll, seNll }) => ({ group, nllBefore, nllAfter, deltaNll, seNll })),
  }
}

const writeReport = async (run: Run, { spec, ...resolved }: ResolvedRun, startedAtMs: number, verdict: string, modelPath: string | null): Promise<{ path: string; url: string }> => {
  const { workflowId, runId } = workflowInfo()
  return await proxyActivities<ControlActivities>({ ...light, activityId: 'report', summary: 'report', scheduleToCloseTimeout: '1 hour' }).writeReport({
    run: spec.name, workflowId, runId, startedAtMs, spec, resolved, lines: run.progress.stages, decisions: run.decisionsKept, operator: run.progress.decisions, verdict, modelPath,
  })
}

/** A report is of most use where something went wrong; that it cannot be written must not hide why the run ended. */
const reportFailed = async (run: Run, resolved: ResolvedRun, startedAtMs: number): Promise<void> => {
  try {
    const { url } = await writeReport(run, resolved, startedAtMs, 'none', null)
    run.finish('failed', `Report: ${url}`)
  } catch (e) {
    run.finish('failed', `No report could be written: ${e instanceof Error ? e.message : String(e)}`)
  }
}

const placed = ({ uri, sha256 }: { uri: string; sha256: string }): { uri: string; sha256: string } => ({ uri, sha256 })

const describe = (run: Run, { spec, parameters, corpus }: ResolvedRun): void => {
  const share = spec.plan[0]?.mixture.languages[spec.targetLanguage] ?? 0
  run.describe({
    model: spec.base.model.slice(0, 100),
    owner: spec.owner,
    backend: spec.placement.train.runner,
    almr: share,
    lr: spec.training.peakLr,
    lines: [
      `${spec.name}: ${spec.base.model.replace(/[^\w:/.-]/g, ' ')} (${parameters} parameters) → ${spec.targetLanguage}, ${spec.plan.map((s) => `${s.name} ${s.tokens} tokens in ${s.rounds} round${s.rounds === 1 ? '' : 's'}`).join(', ')}; ALMR ${share}, peak LR ${spec.training.peakLr}${corpus === undefined ? '' : `; corpus ${corpus.name} #${corpus.number}`}`,
    ],
  })
}
