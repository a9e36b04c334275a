import { CancellationScope, ChildWorkflowCancellationType, ParentClosePolicy, proxyActivities, setHandler, sleep, startChild, workflowInfo, type ChildWorkflowHandle } from '@temporalio/workflow'
import { ChildWorkflowFailure, WorkflowExecutionAlreadyStartedError } from '@temporalio/common'
import type { ControlActivities, ResolvedRun, ResolvedTransfer } from '@cpt/contracts/activities'
import { Approval, ConfirmationVerdict, ModelTransferInput, targetLrOf, type ModelTransferResult } from '@cpt/contracts/model-transfer'
import { light } from '../activity-options.ts'
import type { cptRun } from '../cpt-run.ts'
import { runParkedSignal } from '../messages.ts'
import { plain } from '../page.ts'
import { parseInput } from '../parse.ts'
import { openRun, type Run } from '../run.ts'
import { lossesOf } from '../sweep/measure.ts'
import { prepareTrials } from '../sweep/prepare-trials.ts'
import { noTrials, openTrials } from '../sweep/trials.ts'
import { passOnPauses } from '../tell.ts'
import { openApproval } from './approval.ts'
import { confirm } from './confirm.ts'
import { evidenceText } from './evidence-text.ts'
import { confirmationPoints } from './points.ts'

/**
 * Carries what a sweep found on a proxy over to a larger target (arXiv:2409.06624): the choice and its neighbours are
 * trained for a short while on the target, what they find is compared with what the proxy predicted, a person approves,
 * and the target is trained. Takes one JSON object (ModelTransferInput) that names the verdict.
 */
export async function modelTransfer(input?: unknown): Promise<ModelTransferResult> {
  const given = parseInput(ModelTransferInput, input ?? {}) as ModelTransferInput
  const run = openRun('modelTransfer')
  const approval = openApproval(run)
  const resolved = await proxyActivities<ControlActivities>({ ...light, activityId: 'resolve-transfer', summary: 'preset, verdict, target' }).resolveTransfer(given)
  describe(run, resolved)
  try {
    const confirmation = await confirmOnTarget(run, resolved)
    const { verdict } = resolved.evidence ?? { verdict: null }
    const lines = evidenceText(confirmation, { source: resolved.evidence === null ? 'nothing' : resolved.evidence.sweepId, words: verdict?.words ?? [], workflowId: workflowInfo().workflowId })
    const answer = await approval(confirmation, lines)
    const approved = await run.decide('approval', 'approval', { confirmation, chosen: resolved.chosen, override: resolved.override }, answer, Approval)
    const { almr, peakLr } = resolved.chosen
    const result = { almr, peakLr: targetLrOf(peakLr, resolved.spec.lrFactor), confirmation, approval: approved }
    if (!approved.approved) {
      run.finish('done', `Refused by ${approved.by}${approved.reason === '' ? '' : `: ${approved.reason}`}. The target was not trained.`)
      return { state: 'refused', ...result, run: null }
    }
    const trained = await trainTarget(run, { ...resolved.run, spec: { ...resolved.run.spec, lineage: lineageOf(run, resolved) } })
    run.finish('done', `The target was trained by \`${trained.workflowId}\`. Report: ${trained.result.report}`)
    return { state: 'trained', ...result, run: trained }
  } catch (e) {
    await CancellationScope.nonCancellable(() => Promise.resolve(run.finish('failed', endOf(e))))
    throw e
  }
}

/** The choice and its neighbours, each trained for a short while on the target, against what the proxy predicted. */
const confirmOnTarget = async (run: Run, { spec, evidence, chosen, trials: sweep, run: shared }: ResolvedTransfer): Promise<ConfirmationVerdict> => {
  const { points, without } = confirmationPoints(chosen, evidence?.verdict.cells ?? [], spec.confirmation.neighbours, spec.lrFactor)
  const planned = spec.confirmation.seeds.flatMap((seed) => points.map((point, pointIndex) => ({ pointIndex, point: { almr: point.almr, peakLr: point.targetLr, seed } })))
  const trials = openTrials(run, { points: planned.map((p) => p.point), order: planned.map((_, i) => i), sweep, shared }, noTrials(spec.confirmation.budgetGpuSeconds))
  const prepared = await prepareTrials(run, shared)
  await trials.work(prepared, () => Promise.resolve())
  const inputs = {
    points, without, trials: trials.outcomes(), pointOf: planned.map((p) => p.pointIndex), base: lossesOf(prepared.ofBase.strata, shared.spec.targetLanguage),
    proxy: evidence === null ? null : { cells: evidence.verdict.cells, base: evidence.verdict.base, standardDeviation: evidence.verdict.standardDeviation.added },
    sameTokenizer: evidence?.sameTokenizer ?? true, settings: sweep.choice,
  }
  return await run.decide('confirmation', 'confirmation', inputs, confirm(inputs), ConfirmationVerdict)
}

/** Why the target was not trained: a run that failed says it, other ends stand in the page's lines. */
const endOf = (e: unknown): string => {
  if (!(e instanceof ChildWorkflowFailure) || e.workflowType !== 'cptRun') return 'Ended before the target was trained'
  return `\`${e.execution.workflowId}\` ended before the target was trained: ${plain(e.cause?.message ?? 'no reason given')}`
}

/** What stands in the model's lineage besides its data: the sweep's verdict, the confirmation, who approved or overrode. */
const lineageOf = (run: Run, { evidence, override }: ResolvedTransfer): NonNullable<ResolvedRun['spec']['lineage']> => {
  const kept = (kind: string): { uri: string; sha256: string } => {
    const { uri = '', sha256 = '' } = run.decisionsKept.find((d) => d.kind === kind) ?? {}
    return { uri, sha256 }
  }
  return [
    ...evidence === null ? [] : [{ what: 'verdict of the sweep', uri: evidence.verdictRef.uri, sha256: evidence.verdictRef.sha256 }],
    { what: 'confirmation on this model', ...kept('confirmation') },
    { what: `approval${override === null ? '' : ', overriding the evidence'}`, ...kept('approval') },
  ]
}

/**
 * The run on the target. What it waits for stands on the transfer's page, a pause of the transfer is the run's, and a
 * cancelled transfer cancels it. One left by this transfer before a reset goes first.
 */
const trainTarget = async (run: Run, resolved: ResolvedRun): Promise<NonNullable<ModelTransferResult['run']>> => {
  const workflowId = `${workflowInfo().workflowId}/run`
  await run.released()
  setHandler(runParkedSignal, ({ workflowId: from, waitsFor }) => {
    if (from !== workflowId) return
    run.progress.waits = waitsFor.map((w) => ({ workflowId, ...w }))
    run.show('run', { stage: 'run', state: waitsFor.length === 0 ? 'running' : 'parked', note: [workflowId, ...waitsFor.map((w) => `waits for a person at ${w.stage}, ${w.type}`)].join(': ') })
  })
  run.show('run', { stage: 'run', state: 'running', note: workflowId })
  const child = await startRun(workflowId, resolved)
  const beside = new CancellationScope()
  const passing = beside.run(() => passOnPauses(run, () => [workflowId])).catch(() => undefined)
  try {
    const result = await child.result()
    run.show('run', { stage: 'run', state: 'done', note: `${workflowId}: gate ${result.verdict}` })
    return { workflowId, result }
  } finally {
    beside.cancel()
    await passing
  }
}

const startRun = async (workflowId: string, resolved: ResolvedRun): Promise<ChildWorkflowHandle<typeof cptRun>> => {
  for (;;) {
    try {
      return await startChild<typeof cptRun>('cptRun', {
        workflowId, args: [{ name: resolved.spec.name }, undefined, resolved], staticSummary: resolved.spec.name,
        parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL, cancellationType: ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
      })
    } catch (e) {
      if (!(e instanceof WorkflowExecutionAlreadyStartedError)) throw e
      await sleep('2 seconds')
    }
  }
}

const describe = (run: Run, { spec, evidence, override, chosen, run: { spec: target, parameters } }: ResolvedTransfer): void => {
  const peakLr = targetLrOf(chosen.peakLr, spec.lrFactor)
  const code = (text: string): string => `\`${text.replaceAll('`', ' ')}\``
  run.describe({
    model: target.base.model.slice(0, 100), owner: spec.owner, backend: target.placement.train.runner, almr: chosen.almr, lr: peakLr,
    lines: [
      `${spec.name}: ALMR ${chosen.almr} at peak LR ${chosen.peakLr} × ${spec.lrFactor} = ${peakLr} on ${target.base.model.replace(/[^\w:/.-]/g, ' ')} (${parameters} parameters)`,
      evidence === null ? '**No sweep stands behind this choice.**' : `Evidence: ${code(evidence.sweepId)}, verdict ${code(evidence.verdictRef.sha256)}${evidence.verdict.missing.length === 0 ? '' : `; ${evidence.verdict.missing.length} of its trials have no result`}`,
      ...override === null ? [] : [`Overridden by ${code(override.by)}: ${code(override.reason.replace(/\s+/g, ' '))}`],
    ],
  })
}
