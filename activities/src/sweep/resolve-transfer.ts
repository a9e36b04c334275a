import { ApplicationFailure } from '@temporalio/common'
import { SweepSpec, trialSpec } from '@cpt/contracts/almr-lr-sweep'
import type { ControlActivities, ResolvedRun, ResolvedTransfer } from '@cpt/contracts/activities'
import { CptRunSpec, type CptRunInput } from '@cpt/contracts/cpt-run'
import { targetLrOf, transferSpec, TransferSpec, type ModelTransferInput } from '@cpt/contracts/model-transfer'
import { checkInput, type Problem } from '@cpt/contracts/parse-input'
import { needsOf } from '@cpt/contracts/stages-off'
import type { VerdictFile } from '@cpt/contracts/sweep-verdict'
import type { Deps } from '../deps.ts'
import { resolveSweep } from '../resolve-sweep.ts'
import { invalidInput, mergeDeep, readPreset, resolveSpec } from '../resolve-input.ts'
import { readVerdict } from './verdicts.ts'

/**
 * Completes a transfer: preset, then what was given; the verdict is read and its digest checked, the target is found. Every
 * trial on the target, and the run that it comes to, has to be one that can be carried out. Without a verdict that chose
 * something a person must override. Fails with InvalidInput listing all problems by path.
 */
export const resolveTransfer =
  (deps: Pick<Deps, 'config' | 'store'>): ControlActivities['resolveTransfer'] =>
  async ({ preset = 'transfer', verdict: cited, override, run: ofTarget = {}, ...given }: ModelTransferInput): Promise<ResolvedTransfer> => {
    const { data: spec, problems } = checkInput(TransferSpec, mergeDeep(await readPreset(deps.config.roots, preset), given))
    if (problems !== null) throw invalidInput(problems)
    const file = cited === undefined ? null : await readVerdict(deps)(cited)
    const chosen = override ?? file?.verdict.chosen ?? null
    if (chosen === null) throw invalidInput([withoutEvidence(file)])

    const { sweep, run: proxy } = file ?? (await resolveSweep(deps)({ grid: { almr: [chosen.almr], peakLrs: [chosen.peakLr] } }))
    const trials = SweepSpec.parse({
      ...sweep, name: spec.name, description: spec.description, owner: spec.owner, tokensPerTrial: spec.confirmation.tokens ?? sweep.tokensPerTrial, parallel: spec.confirmation.parallel,
      budgetGpuSeconds: spec.confirmation.budgetGpuSeconds, expectedGpuSeconds: spec.confirmation.expectedGpuSeconds, parkedTrials: 'wait',
    })
    const run = await resolveTarget(deps, { spec, trials, chosen, proxy, ofTarget })
    return {
      spec, override: override ?? null, chosen: { almr: chosen.almr, peakLr: chosen.peakLr }, trials, run,
      evidence: file === null ? null : { sweepId: file.workflowId, verdictRef: file.verdictRef, verdict: file.verdict, sameTokenizer: file.run.tokenizer.sha256 === run.tokenizer.sha256 },
    }
  }

const withoutEvidence = (file: VerdictFile | null): Problem => ({
  path: 'verdict',
  expected: 'the verdict of a sweep that chose something (verdictRef of its result), or an override {almr, peakLr, reason, by} by a person who takes that upon himself',
  got: file === null ? 'no verdict' : `one that chose nothing: ${file.verdict.words[0] ?? ''}`.slice(0, 300),
})

interface Wanted {
  spec: TransferSpec
  trials: SweepSpec
  chosen: { almr: number; peakLr: number }
  proxy: ResolvedRun
  ofTarget: Omit<CptRunInput, 'preset' | 'plan' | 'base' | 'targetLanguage'>
}

/** The run of the sweep on the target: its corpus as it was then, scored by the proxy where both read the same tokens. */
const resolveTarget = async (deps: Pick<Deps, 'config' | 'store'>, { spec, trials, chosen, proxy, ofTarget }: Wanted): Promise<ResolvedRun> => {
  const base = proxy.spec
  if (ofTarget.training?.peakLr !== undefined) throw invalidInput([{ path: 'run.training.peakLr', expected: 'nothing: it is the chosen one × lrFactor', got: String(ofTarget.training.peakLr) }])
  // the name is that of the sweep's corpus; a target may read other tokens of it
  const { name: _name, ...corpus } = base.corpus
  const merged = { ...transferSpec(base, trials, spec, chosen), name: spec.name, description: spec.description, owner: spec.owner, base: spec.target, corpus }
  const over = mergeDeep(merged, ofTarget)
  const learned = { almr: chosen.almr, peakLr: targetLrOf(chosen.peakLr, spec.lrFactor), seed: 0 }
  // the trials come before the run
  const misfits = (checkInput(CptRunSpec, trialSpec(over as CptRunSpec, trials, learned)).problems ?? []).filter((p) => /^plan\.|^training\.(?:warmup|decay)/.test(p.path))
  if (misfits.length > 0) throw invalidInput(misfits.map((p) => ({ ...p, path: p.path.startsWith('plan.') ? 'confirmation.tokens' : `run.${p.path}` })))
  const known = ofTarget.corpus === undefined ? proxy.sources : undefined
  try {
    const resolved = await resolveSpec(deps, over, known)
    const needs = needsOf(resolved.spec, resolved.corpus !== undefined)
    if (needs.length > 0) throw invalidInput(needs)
    if (resolved.spec.base.tokenizer !== undefined) throw invalidInput([{ path: 'base.tokenizer', expected: 'nothing: the target of a transfer keeps its tokenizer', got: resolved.spec.base.tokenizer }])
    const same = resolved.tokenizer.sha256 === proxy.tokenizer.sha256
    return same && resolved.scorer === undefined ? { ...resolved, scorer: proxy.scorer ?? proxy.base } : resolved
  } catch (e) {
    if (!(e instanceof ApplicationFailure) || e.type !== 'InvalidInput') throw e
    throw invalidInput(((e.details ?? []) as Problem[]).map((p) => ({ ...p, path: placeOf(p.path) })))
  }
}

/** Where a person finds what is wrong. */
const placeOf = (path: string): string => {
  if (path.startsWith('base.')) return `target.${path.slice('base.'.length)}`
  if (path.startsWith('plan.')) return path.endsWith('reweight') ? 'phase.reweight' : 'phase.tokens'
  return /^(?:confirmation|run)\./.test(path) ? path : `run.${path}`
}
