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

/** Names of the two checks that are no benchmark. */
export const retentionCheck = 'retention'
export const gainCheck = (language: string): string => `gain in ${language}`

/** What a person is told of the checks that did not pass: each with what was found, by how much it misses, and what to change. */
export const explainGate = (checks: readonly GateCheck[], harms: readonly Pick<Harm, 'name' | 'unit'>[], target: string, { z }: Pick<GateSpec, 'z'>): { found: string; cause: string; suggest: string } => {
  const told = checks.filter((c) => c.verdict !== 'pass').map((c) => explained(c, target, z, harms.find((h) => h.name === c.name)?.unit ?? null))
  return { found: told.map((t) => t.found).join('; '), cause: [...new Set(told.map((t) => t.cause))].join(' '), suggest: [...new Set(told.map((t) => t.suggest))].join('; ') }
}

/** `unit` is null where nothing was measured. */
const explained = ({ name, verdict, value, standardError, bound }: GateCheck, target: string, z: number, unit: string | null): { found: string; cause: string; suggest: string } => {
  const isGain = name === gainCheck(target)
  if (unit === null) {
    return {
      found: `${name} was not measured: there is no held-out document of it (undecided)`,
      cause: `Nothing tells the ${isGain ? 'gain' : 'loss'}: the validation sets have no document for it.`,
      suggest: isGain ? `more text in ${target} among corpus.sources, so that some is held out` : 'a source of text like the base\'s own with use: validate',
    }
  }
  const reach = `± ${(z * standardError).toFixed(3)} ${unit}`
  const short = (value - bound).toFixed(3)
  const found = isGain
    ? `${name} is ${(-value).toFixed(3)} ${reach}, asked for is ${(-bound).toFixed(3)} (${verdict})`
    : `${name}: worse by ${value.toFixed(3)} ${reach}, allowed is ${bound.toFixed(3)} (${verdict})`
  if (verdict === 'undecided') {
    return {
      found,
      cause: `Too little evidence: ${name} may lie on either side of its bound.`,
      suggest: isGain || name === retentionCheck ? 'more held-out text (a smaller corpus.holdOut.targetSeNats, more use: validate text), which narrows the interval' : `more items of ${name} (evaluation.benchmarks limit), which narrow the interval`,
    }
  }
  if (isGain) return { found, cause: `The model learned too little ${target}: ${short} nats/token less than asked for.`, suggest: `more tokens or a larger share of ${target} in the plan, or a higher training.peakLr; a lower gate.minGainNats where so much was not to be expected` }
  const lost = name === retentionCheck ? 'on retained text' : `in ${name}`
  return { found, cause: `The model lost more of its old abilities than the gate allows, ${lost}: ${short} ${unit} too much.`, suggest: `a smaller share of ${target} or more replayed text in the plan, or a lower training.peakLr` }
}
