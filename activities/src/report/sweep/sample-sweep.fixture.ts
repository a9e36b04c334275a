import { readFileSync } from 'node:fs'
import { SweepSpec, trialPlan } from '@cpt/contracts/almr-lr-sweep'
import type { SweepReportRequest } from '@cpt/contracts/activities'
import type { ArtifactRef, CommitRecord } from '@cpt/contracts/artifact'
import type { StageLine } from '@cpt/contracts/cpt-run'
import type { SweepCell, SweepVerdict, TrialOutcome, TrialPoint } from '@cpt/contracts/sweep'
import { parse } from 'yaml'
import { sha256 } from '../../identity.ts'
import { sampleSpec } from '../sample-run.fixture.ts'
import type { CurvePoint } from '../view.ts'
import { runPages } from './run-page.ts'
import type { PageOf } from './sweep-view.ts'

/** A whole sweep in memory, for tests and for looking at the page. */
export interface SampleSweep {
  request: SweepReportRequest
  source: { records: Map<string, CommitRecord | null>; curves: Map<string, CurvePoint[]>; sourceLines: Map<string, Map<string, { lines: number; quarantined: number }>>; decisions: [] }
  pageOf: PageOf
}

export interface Shape {
  almr?: number[]
  peakLrs?: number[]
  seeds?: number[]
  tolerance?: number
  budget?: number | null
  /** Trials without a result, by index. */
  without?: Record<number, Exclude<TrialOutcome['status'], 'done'>>
}

const startMs = Date.UTC(2026, 10, 22, 2, 0)
const ref = (uri: string, bytes = 123_456): ArtifactRef => ({ uri, sha256: sha256(uri), bytes })
const wave = (i: number): number => Math.sin(i * 12.9898) * 0.5 + Math.sin(i * 78.233) * 0.5
const base = { added: { perToken: 5.761, perByte: 2.12 }, retained: { perToken: 4.262, perByte: 1.07 } }
const { run: _run, ...preset } = parse(readFileSync(new URL('../../../../samples/sweep.yaml', import.meta.url), 'utf8')) as Record<string, unknown>

export const pageOfSample = runPages({ uiUrl: 'http://127.0.0.1:8233', namespace: 'cpt' })

/** More of the added language and a higher rate learn more and forget more; too high a rate learns less. */
const measuredAt = ({ almr, peakLr, seed }: TrialPoint, index: number): [added: number, retained: number] => {
  const x = Math.log10(peakLr / 1e-3)
  const noise = 0.006 * wave(index + seed)
  return [base.added.perToken - 1.1 * almr ** 0.45 * (1 - 0.5 * (x - 0.15) ** 2) - 0.05 + noise, base.retained.perToken - 0.05 + 0.16 * (almr + 0.05) ** 1.2 * (1 + 1.4 * (x + 0.4)) + 0.5 * noise]
}

const pointsOf = (almr: number[], peakLrs: number[], seeds: number[]): TrialPoint[] => [0, ...almr].flatMap((a) => peakLrs.flatMap((peakLr) => seeds.map((seed) => ({ almr: a, peakLr, seed }))))

const curveOf = ({ almr, peakLr }: TrialPoint, index: number, final: number): CurvePoint[] =>
  Array.from({ length: 32 }, (_, i) => ({ step: i + 1, tokens: (i + 1) * 4096, loss: final + (0.9 - 0.3 * almr) * Math.exp(-(i + 1) / 9) + 0.05 * wave(index * 40 + i), lr: peakLr * Math.min(1, (i + 1) / 4) }))

export const sampleSweep = ({ almr = [0.2, 0.5, 0.8], peakLrs = [4e-4, 1e-3, 2.5e-3], seeds = [1, 2], tolerance = 0.08, budget = 400, without = {} }: Shape = {}): SampleSweep => {
  const workflowId = 'sweep/almr-lr-nightly'
  const asked = SweepSpec.parse({ ...preset, name: 'almr-lr-nightly', owner: 'ann', budgetGpuSeconds: budget, choice: { retentionToleranceNats: tolerance, z: 1.64 }, parkedTrials: 'leave' })
  // also a grid larger than what may be asked
  const sweep: SweepSpec = { ...asked, grid: { almr, peakLrs, seeds } }
  const trials = pointsOf(almr, peakLrs, seeds).map((point, index): TrialOutcome => {
    const status = without[index] ?? 'done'
    const [added, retained] = measuredAt(point, index)
    const training = sha256(`training-${index}`)
    return { index, point, status, workflowId: `${workflowId}/trial-${index}`, measurement: status === 'done' ? { added: { perToken: added, perByte: added * 0.368 }, retained: { perToken: retained, perByte: retained * 0.251 }, tokens: sweep.tokensPerTrial, gpuSeconds: 11 + wave(index), model: ref(`store:${training}/model/`), training } : null }
  })
  const spec = { ...sampleSpec(), name: 'almr-lr-trial', plan: trialPlan('zh', sweep, 0.5) }
  const verdict = verdictOf(trials, tolerance, sweep.choice)
  const line = (key: string, stage: string, from: number, seconds: number, more: Partial<StageLine> = {}): StageLine => ({ key, stage, state: 'done', fingerprint: sha256(key), startedAtMs: startMs + from * 1000, seconds, jobSeconds: seconds - 0.6, attempts: 1, note: '', ...more })
  const lines = [
    line('ingest', 'ingest', 1, 3), line('tokenize', 'tokenize', 4, 6, { state: 'reused', jobSeconds: 0 }), line('base/perplexity', 'evaluate-perplexity', 10, 6),
    ...trials.map((t, i) => line(`trial-${i}`, 'trial', 16 + 6 * i, 12, { fingerprint: '', state: t.status === 'done' ? 'done' : t.status === 'parked' ? 'parked' : 'failed', note: t.status === 'parked' ? 'waits for a person, LossNotFinite: loss is not finite at step 12' : '' })),
  ]
  const done = trials.filter((t) => t.measurement !== null)
  return {
    request: {
      workflowId, runId: '019ab1d2-7e5a-7a3b-9c41-5d3f0c1b2a99', startedAtMs: startMs,
      resolved: { sweep, run: { spec, sources: spec.corpus.sources.map((s) => ({ name: s.name, file: ref(s.path, 1_400_000) })), benchmarks: [], base: ref('samples:base/', 3_400_000), tokenizer: ref('samples:base/tokenizer.json', 290_000), parameters: 846_432 } },
      base, trials, verdict, verdictRef: ref(`store:${sha256('verdict')}/verdict.json`, 9000),
      ledger: { budget, spent: Object.fromEntries(done.map((t) => [t.index, t.measurement?.gpuSeconds ?? 0])), reserved: Object.fromEntries(trials.filter((t) => t.status === 'parked').map((t) => [t.index, 12])), settled: done.map((t) => t.index) },
      lines, decisions: [{ key: 'choice', kind: 'choice', uri: 'decisions/a1/choice-1234.json' }],
      operator: [{ stage: 'tokenize', park: 1, action: 'retry', patch: null, reason: 'the disk was full', by: 'ann', atMs: startMs + 5000 }],
    },
    source: { records: new Map(), curves: new Map(done.map((t) => [t.measurement?.training ?? '', curveOf(t.point, t.index, (t.measurement?.added.perToken ?? 0) * 0.95)])), sourceLines: new Map(), decisions: [] },
    pageOf: pageOfSample,
  }
}

/** A verdict as the sweep's own would look, its words shortened. */
const verdictOf = (trials: readonly TrialOutcome[], tolerance: number, settings: SweepVerdict['settings']): SweepVerdict => {
  const cells = [...new Map(trials.map((t) => [`${t.point.almr} ${t.point.peakLr}`, t.point])).values()].map(({ almr, peakLr }): SweepCell => {
    const own = trials.filter((t) => t.point.almr === almr && t.point.peakLr === peakLr)
    const found = own.flatMap((t) => t.measurement ?? [])
    const mean = (of: 'added' | 'retained') => (found.length === 0 ? null : { perToken: found.reduce((s, m) => s + m[of].perToken, 0) / found.length, perByte: found.reduce((s, m) => s + m[of].perByte, 0) / found.length })
    const retained = mean('retained')
    const state = found.length < own.length ? 'incomplete' : almr === 0 ? 'control' : (retained?.perToken ?? Infinity) <= base.retained.perToken + tolerance ? 'feasible' : 'infeasible'
    return { almr, peakLr, seeds: own.length, measured: found.length, added: mean('added'), retained, state }
  })
  const feasible = cells.filter((c) => c.state === 'feasible').sort((a, b) => (a.added?.perToken ?? 0) - (b.added?.perToken ?? 0))
  const [best, second] = feasible
  const lrs = cells.map((c) => c.peakLr)
  const shares = cells.map((c) => c.almr).filter((a) => a > 0)
  return {
    format: 'cpt-sweep-verdict/1',
    chosen: best?.added == null || best.retained === null ? null : { almr: best.almr, peakLr: best.peakLr, added: best.added, retained: best.retained },
    ties: second === undefined ? [] : [{ almr: second.almr, peakLr: second.peakLr }],
    edges: best === undefined ? [] : [...(best.almr === Math.min(...shares) ? ['smallest-almr' as const] : []), ...(best.almr === Math.max(...shares) ? ['largest-almr' as const] : []), ...(best.peakLr === Math.min(...lrs) ? ['smallest-lr' as const] : []), ...(best.peakLr === Math.max(...lrs) ? ['largest-lr' as const] : [])],
    cells,
    standardDeviation: { added: 0.006, retained: 0.003 },
    base, settings,
    missing: trials.filter((t) => t.measurement === null).map(({ index, point, status }) => ({ index, point, status })),
    words: best === undefined ? ['Nothing is feasible, so nothing was chosen.'] : [`Chosen: ALMR ${best.almr} at peak learning rate ${best.peakLr}.`],
  }
}
