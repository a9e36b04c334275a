import type { ArtifactRef } from '@cpt/contracts/artifact'
import type { ResolvedRun } from '@cpt/contracts/activities'
import type { GateSpec } from '@cpt/contracts/cpt-run'
import { z } from 'zod'
import { explainGate, gainCheck, judgeGate, retentionCheck, type GateVerdict, type Harm } from './gate.ts'
import type { ResultOf, Run } from './run.ts'

export type BenchmarkResults = Record<string, ResultOf<'evaluateBenchmark'> | null>

/** All benchmarks of one model, one after the other, beside whatever else the run does. A benchmark may be skipped. */
export const evaluateBenchmarks = async (run: Run, who: 'base' | 'final', model: ArtifactRef, { spec, benchmarks }: ResolvedRun): Promise<BenchmarkResults> => {
  const results: BenchmarkResults = {}
  for (const b of spec.evaluation.benchmarks) {
    const items = benchmarks.find((x) => x.name === b.name)?.items
    if (items === undefined) throw new TypeError(`evaluation: benchmark ${b.name} was not resolved`)
    results[b.name] = await run.optionalStage(`${who}/${b.name}`, 'evaluateBenchmark', {
      model, task: { name: b.name, kind: b.kind, items, shots: b.shots, limit: b.limit, maxGeneratedTokens: b.maxGeneratedTokens }, dtype: spec.training.dtype, seed: spec.seed,
    }, { placement: spec.placement.evaluate, note: (r) => `${r.score.metric} ${r.score.value.toFixed(3)} ± ${r.score.standardError.toFixed(3)} on ${r.score.items} items` })
  }
  return results
}

/** Paired differences, benchmark by benchmark, where both sides were measured. */
export const compareBenchmarks = async (run: Run, base: BenchmarkResults, final: BenchmarkResults, { spec }: ResolvedRun): Promise<(ResultOf<'compareBenchmark'> & { name: string; higherIsBetter: boolean })[]> => {
  const compared = []
  for (const [name, before] of Object.entries(base)) {
    const after = final[name]
    if (before === null || after === null || after === undefined) continue
    const difference = await run.stage(`compare/${name}`, 'compareBenchmark', { before: before.perItem, after: after.perItem }, { placement: spec.placement.data, note: (r) => `${r.difference >= 0 ? '+' : ''}${r.difference.toFixed(3)} ± ${r.standardError.toFixed(3)}` })
    compared.push({ ...difference, name, higherIsBetter: before.score.higherIsBetter })
  }
  return compared
}

const Verdict = z.object({
  verdict: z.enum(['pass', 'fail', 'undecided']),
  checks: z.array(z.object({ name: z.string(), verdict: z.enum(['pass', 'fail', 'undecided']), value: z.number(), standardError: z.number(), bound: z.number(), note: z.string() })),
})

/** Retained text, new language and benchmarks against the gate. Undecided or failed: a person decides, on record. */
export const gate = async (run: Run, change: ResultOf<'comparePerplexity'>, benchmarks: Awaited<ReturnType<typeof compareBenchmarks>>, target: string, settings: GateSpec): Promise<GateVerdict> => {
  const group = (name: string) => change.groups.find((g) => g.group === name)
  const [retained, gained] = [group('retention'), group(target)]
  const unmeasured = [...(retained === undefined ? [retentionCheck] : []), ...(gained === undefined ? [gainCheck(target)] : [])]
  const harms: Harm[] = [
    ...(retained === undefined ? [] : [{ name: retentionCheck, value: retained.deltaNll, standardError: retained.seNll, bound: settings.retentionToleranceNats, unit: 'nats/token' }]),
    ...(gained === undefined ? [] : [{ name: gainCheck(target), value: gained.deltaNll, standardError: gained.seNll, bound: -settings.minGainNats, unit: 'nats/token' }]),
    ...benchmarks.map((b) => ({ name: b.name, value: b.higherIsBetter ? -b.difference : b.difference, standardError: b.standardError, bound: settings.benchmarkMargin, unit: b.higherIsBetter ? 'of the items' : 'nats/byte' })),
  ]
  const { verdict, checks } = await run.decide('gate', 'gate', { harms, settings, unmeasured }, judgeGate(harms, settings, unmeasured), Verdict)
  if (verdict === 'pass') return verdict
  const { found, ...why } = explainGate(checks, harms, target, settings)
  const answer = await run.ask({ stage: 'gate', type: 'GateFailed', message: `the gate says ${verdict}: ${found}. Skip publishes the model all the same, abort ends the run without a model.`, actions: ['skip', 'abort'], why })
  return answer.action === 'skip' ? verdict : 'fail'
}
