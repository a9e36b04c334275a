import type { StratumLoss } from '@cpt/contracts/evaluate-perplexity'
import type { LanguageLoss } from '@cpt/contracts/sweep'

/** Losses of the added language, and of what is to be kept: the retention sets where there are any, else the other languages. */
export const lossesOf = (strata: readonly StratumLoss[], addedLanguage: string): { added: LanguageLoss; retained: LanguageLoss } => {
  const retention = strata.filter((s) => s.set === 'retention')
  const corpus = strata.filter((s) => s.set === 'corpus')
  return { added: pooled(corpus.filter((s) => s.language === addedLanguage)), retained: pooled(retention.length > 0 ? retention : corpus.filter((s) => s.language !== addedLanguage)) }
}

/** Σ nats ÷ Σ tokens and ÷ Σ bytes over the strata; NaN where nothing was measured. */
const pooled = (strata: readonly StratumLoss[]): LanguageLoss => {
  const sum = (of: (s: StratumLoss) => number): number => strata.reduce((total, s) => total + of(s), 0)
  const nats = sum((s) => s.nllPerToken * s.tokens)
  return { perToken: nats / sum((s) => s.tokens), perByte: nats / sum((s) => s.bytes) }
}
