import type { StratumCount } from '@cpt/contracts/count-strata'

/** What there is of each stratum in two pools together, in the order of the first, then of the second. */
export const mergeCounts = (first: readonly StratumCount[], second: readonly StratumCount[]): StratumCount[] => {
  const isOf = (a: StratumCount) => (b: StratumCount): boolean => a.language === b.language && a.kind === b.kind && a.topic === b.topic
  const both = first.map((a) => {
    const b = second.find(isOf(a))
    return b === undefined ? a : { ...a, docs: a.docs + b.docs, tokens: a.tokens + b.tokens, bytes: a.bytes + b.bytes }
  })
  return [...both, ...second.filter((b) => !first.some(isOf(b)))]
}
