import { trainedTokensOf, type CptRunSpec } from './cpt-run.ts'
import type { Schedule } from './train.ts'

/**
 * The schedule of a phase that begins at `startTokens`. training.schedule covers `totalTokens`, all tokens of the plan, or those
 * of the stages before the first with a schedule of its own; from there on each stage is a part, which holds the rate unless
 * the stage says otherwise.
 */
export const scheduleOf = ({ plan, training }: Pick<CptRunSpec, 'plan' | 'training'>, totalTokens: number, startTokens: number): Schedule => {
  const { schedule, peakLr, minLr, warmupTokens, decayTokens, initialLr, decayShape, globalBatchTokens } = training
  const whole = {
    shape: schedule, peakLr, minLr, warmupTokens, decayTokens, totalTokens, startTokens,
    ...(initialLr === undefined ? {} : { initialLr }),
    ...(decayShape === undefined ? {} : { decayShape }),
  }
  const first = plan.findIndex((s) => s.schedule !== undefined)
  if (first < 0) return whole
  const tokens = plan.map((s) => trainedTokensOf(s, globalBatchTokens))
  return {
    ...whole,
    totalTokens: tokens.slice(0, first).reduce((a, b) => a + b, 0),
    parts: plan.slice(first).map((s, i) => ({ ...(s.schedule ?? { shape: 'hold' as const }), tokens: tokens[first + i] ?? 0 })),
  }
}
