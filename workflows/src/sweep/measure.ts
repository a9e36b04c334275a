import { ApplicationFailure } from '@temporalio/common'
import type { StratumLoss } from '@cpt/contracts/evaluate-perplexity'
import type { LanguageLoss } from '@cpt/contracts/sweep'

/**
 * Losses of the added language, and of what is to be kept: the retention sets where there are any, else the other
 * languages. Fails with InvalidInput where either was not measured at all.
 */
export const lossesOf = (strata: readonly StratumLoss[], addedLanguage: string): { added: LanguageLoss; retained: LanguageLoss } => {
  const retention = strata.filter((s) => s.set === 'retention')
  const corpus = strata.filter((s) => s.set === 'corpus')
  return {
    added: pooled(corpus.filter((s) => s.language === addedLanguage), `text in ${addedLanguage}`),
    retained: pooled(retention.length > 0 ? retention : corpus.filter((s) => s.language !== addedLanguage), 'text of what is to be kept (sources with use: validate, or another language)'),
  }
}

/** Σ nats ÷ Σ tokens and ÷ Σ bytes over the strata. */
const pooled = (strata: readonly StratumLoss[], what: string): LanguageLoss => {
  const sum = (of: (s: StratumLoss) => number): number => strata.reduce((total, s) => total + of(s), 0)
  const nats = sum((s) => s.nllPerToken * s.tokens)
  const losses = { perToken: nats / sum((s) => s.tokens), perByte: nats / sum((s) => s.bytes) }
  if (!Number.isFinite(losses.perToken) || !Number.isFinite(losses.perByte)) throw ApplicationFailure.nonRetryable(`corpus: the validation sets hold no ${what}, so a trial cannot be judged; expected documents of it, enough for corpus.holdOut.minDocs`, 'InvalidInput')
  return losses
}
