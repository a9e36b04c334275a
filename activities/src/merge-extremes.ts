import type { Extremes } from '@cpt/contracts/score-ppl'

const mostRanked = 10
const mostNonFinite = 20

/** The extremes of a whole corpus from those of its shards; ties stay in the order of shards and rows. */
export const mergeExtremes = (shards: readonly Extremes[]): Extremes => ({
  highest: shards.flatMap((s) => s.highest).sort((a, b) => b.nll - a.nll).slice(0, mostRanked),
  lowest: shards.flatMap((s) => s.lowest).sort((a, b) => a.nll - b.nll).slice(0, mostRanked),
  nonFinite: shards.flatMap((s) => s.nonFinite).slice(0, mostNonFinite),
})
