import type { GateSpec } from '@cpt/contracts/cpt-run'

export type GateVerdict = 'pass' | 'fail' | 'undecided'
export interface GateCheck {
  name: string
  verdict: GateVerdict
  value: number
  standardError: number
  bound: number
  note: string
}
/** A change for the worse is positive: nats gained on retained text, accuracy lost on a benchmark. */
export interface Harm {
  name: string
  value: number
  standardError: number
  bound: number
  unit: string
}

/**
 * Non-inferiority at z standard errors: a harm shown to stay within its bound passes, one shown to exceed it fails, and
 * in between a person (or more data) decides, as for what was not measured at all. The run passes when every check does.
 */
export const judgeGate = (harms: readonly Harm[], settings: Pick<GateSpec, 'z'>, unmeasured: readonly string[] = []): { verdict: GateVerdict; checks: GateCheck[] } => {
  const missing = unmeasured.map((name): GateCheck => ({ name, verdict: 'undecided', value: 0, standardError: 0, bound: 0, note: 'not measured: no validation document of it' }))
  const checks = harms.map((h): GateCheck => {
    const reach = settings.z * h.standardError
    const verdict = h.value + reach <= h.bound ? 'pass' : h.value - reach > h.bound ? 'fail' : 'undecided'
    return { name: h.name, verdict, value: h.value, standardError: h.standardError, bound: h.bound, note: `${h.value.toFixed(3)} ± ${reach.toFixed(3)} ${h.unit}, allowed ${h.bound.toFixed(3)}` }
  }).concat(missing)
  const verdict = checks.some((c) => c.verdict === 'fail') ? 'fail' : checks.some((c) => c.verdict === 'undecided') ? 'undecided' : 'pass'
  return { verdict, checks }
}
