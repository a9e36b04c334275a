import type { ReweightSettings } from '@cpt/contracts/mixture'
import { projectRatios } from './project-ratios.ts'

/** What is known of one topic: its loss on the same frozen set before and after, and the change's standard error. */
export interface TopicChange {
  before: number
  after: number
  standardError: number
}
export interface Reweighted {
  ratios: Record<string, number>
  factors: Record<string, number>
  notes: string[]
}

/**
 * Reweighting by perplexity change (arXiv:2407.18743), per language: Δ = after − before, δ = Δ / max(max|Δ|, γ·median),
 * f = 1 + α·δ·w, r ← r·f / Σ r·f. Guards: Δ is soft-thresholded by k standard errors (else noise acts at full
 * strength, the largest |Δ| being mapped to 1); missing or non-finite values and no change at all leave f = 1;
 * the result is projected onto floors and caps. k = γ = floor = 0 and cap = 1 give the paper exactly.
 */
export const reweight = (ratios: Readonly<Record<string, number>>, changes: Readonly<Record<string, TopicChange | undefined>>, settings: ReweightSettings): Reweighted => {
  const topics = Object.keys(ratios).sort()
  const notes: string[] = []
  const deltas: Record<string, number> = {}
  for (const topic of topics) {
    const c = changes[topic]
    if (c === undefined || ![c.before, c.after, c.standardError].every(Number.isFinite)) {
      notes.push(`${topic || 'web'}: no usable measurement, ratio kept`)
      deltas[topic] = 0
      continue
    }
    const raw = c.after - c.before
    deltas[topic] = Math.sign(raw) * Math.max(0, Math.abs(raw) - settings.noiseK * c.standardError)
  }
  const levels = topics.flatMap((t) => (changes[t] !== undefined && Number.isFinite(changes[t].before) ? [changes[t].before] : []))
  const scale = Math.max(...topics.map((t) => Math.abs(deltas[t] ?? 0)), settings.gamma * median(levels))
  if (!(scale > 0)) notes.push('no topic changed by more than its noise: ratios kept')
  const factors = Object.fromEntries(topics.map((t) => [t, scale > 0 ? 1 + settings.alpha * ((deltas[t] ?? 0) / scale) * (settings.weights[t] ?? 1) : 1]))
  const weighted = topics.map((t) => (ratios[t] ?? 0) * (factors[t] ?? 1))
  const total = weighted.reduce((a, b) => a + b, 0)
  const projected = projectRatios(weighted.map((w) => w / total), topics.map((t) => ratios[t] ?? 0), settings.floor, settings.cap)
  return { ratios: Object.fromEntries(topics.map((t, i) => [t, projected[i] ?? 0])), factors, notes }
}

const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  if (sorted.length === 0) return 0
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}
