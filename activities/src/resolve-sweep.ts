import { ApplicationFailure } from '@temporalio/common'
import { SweepSpec, trialPlan, trialSpec, type AlmrLrSweepInput } from '@cpt/contracts/almr-lr-sweep'
import type { ResolvedSweep } from '@cpt/contracts/activities'
import { CptRunInput, CptRunSpec } from '@cpt/contracts/cpt-run'
import { checkInput, type Problem } from '@cpt/contracts/parse-input'
import { needsOf } from '@cpt/contracts/stages-off'
import { z } from 'zod'
import type { Deps } from './deps.ts'
import { invalidInput, mergeDeep, overPreset, readPreset, resolveSpec } from './resolve-input.ts'

/**
 * Completes a sweep: preset, then what was given; the run that its trials share is completed as any run. Every point of
 * the grid has to be a run that can be carried out. Fails with InvalidInput listing all problems by path.
 */
export const resolveSweep =
  ({ config, store }: Pick<Deps, 'config' | 'store'>) =>
  async ({ preset = 'sweep', run = {}, ...given }: AlmrLrSweepInput): Promise<ResolvedSweep> => {
    const { run: shared = {}, ...rest } = Preset.parse(await readPreset(config.roots, preset))
    const { data: sweep, problems } = checkInput(SweepSpec, mergeDeep(rest, given))
    if (problems !== null) throw invalidInput(problems)
    const merged = Merged.parse(await overPreset(config, CptRunInput.parse(mergeDeep(shared, run))))
    if (merged.targetLanguage in sweep.retained) throw invalidInput([{ path: 'retained', expected: 'no share of the added language: ALMR is its share', got: merged.targetLanguage }])
    const least = Math.min(...sweep.grid.almr.filter((a) => a > 0), 1)
    try {
      const resolved = await resolveSpec({ store }, { ...merged, plan: trialPlan(merged.targetLanguage, sweep, least) })
      const misfits = sweep.grid.peakLrs.flatMap((peakLr, i) => (checkInput(CptRunSpec, trialSpec(resolved.spec, sweep, { almr: least, peakLr, seed: 0 })).problems ?? []).map((p): Problem => ({ ...p, path: p.path === 'training.peakLr' ? `grid.peakLrs.${i}` : p.path })))
      if (resolved.spec.base.tokenizer !== undefined) misfits.push({ path: 'base.tokenizer', expected: 'nothing: the base of a sweep keeps its tokenizer; make the extended model first (cptRun with base.tokenizer)', got: resolved.spec.base.tokenizer })
      if (misfits.length > 0) throw invalidInput(misfits)
      const needs = needsOf(resolved.spec, resolved.corpus !== undefined)
      if (needs.length > 0) throw invalidInput(needs)
      return { sweep, run: resolved }
    } catch (e) {
      if (!(e instanceof ApplicationFailure) || e.type !== 'InvalidInput') throw e
      throw invalidInput(((e.details ?? []) as Problem[]).map((p) => ({ ...p, path: placeOf(p.path) })))
    }
  }

const Preset = z.looseObject({ run: z.record(z.string(), z.unknown()).optional() })
const Merged = z.looseObject({ targetLanguage: z.string() })

/** Where a person finds what is wrong: the plan of a trial comes from the sweep, all else from its run. */
const placeOf = (path: string): string => (/^plan\.\d+\.order$/.test(path) ? 'order' : path.startsWith('plan.') ? (path.endsWith('tokens') ? 'tokensPerTrial' : 'retained') : path.startsWith('grid.') ? path : `run.${path}`)
