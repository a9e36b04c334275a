import type { AlmrLrSweepInput } from '@cpt/contracts/almr-lr-sweep'
import { smallRun } from './small-run.ts'

const batch = 4096
const { plan: _plan, preset: _preset, ...brief } = smallRun({ synthesis: { numDocs: 0 }, evaluation: { windowTokens: 128, maxTokensPerDoc: 128, benchmarks: [] } })
// the sweep varies the peak, and the lowest keeps its proportion
const { peakLr: _peak, minLr: _least, ...training } = brief.training ?? {}
const shared = { ...brief, training: { ...training, warmupTokens: batch, decayTokens: batch }, placement: { ...brief.placement, train: { threads: 1, batchTokens: batch, checkpointEverySteps: 4 } } }

/** A sweep of eight trials of four steps each on the small corpus. */
export const smallSweep = (over: AlmrLrSweepInput = {}): AlmrLrSweepInput => ({
  name: 'small', run: shared, grid: { almr: [0.5], peakLrs: [1e-4, 1e-3], seeds: [1, 2] }, tokensPerTrial: 4 * batch, parallel: 2, ...over,
})
