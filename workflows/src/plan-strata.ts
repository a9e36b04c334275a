import type { StratumCount } from '@cpt/contracts/count-strata'
import type { Stratum } from '@cpt/contracts/hold-out'
import type { Mixture } from '@cpt/contracts/mixture'

export type TopicRatios = Record<string, Record<string, number>>
export interface PlannedRatios {
  strata: (Stratum & { ratio: number })[]
  topics: TopicRatios
  notes: string[]
}

/** A mixture that the data cannot carry. */
export class MixtureImpossible extends Error {
  override readonly name = 'MixtureImpossible'
}

/**
 * Ratio of each stratum = language × kind × topic (web only). Kinds without a ratio follow the tokens there are; topic
 * ratios come from `topics` where they are known (a reweighting), else from the mixture's rule. Σ ratio = 1.
 * Throws MixtureImpossible where a share has no documents behind it.
 */
export const planStrata = (mixture: Mixture, counts: readonly StratumCount[], topics: TopicRatios = {}): PlannedRatios => {
  const strata: PlannedRatios['strata'] = []
  const used: TopicRatios = {}
  const notes: string[] = []
  for (const [language, share] of Object.entries(mixture.languages)) {
    if (share === 0) continue
    const mine = counts.filter((c) => c.tokens > 0 && (language === 'synthetic' ? c.kind === 'synthetic' : c.language === language && c.kind !== 'synthetic'))
    if (mine.length === 0) throw new MixtureImpossible(`the mixture gives ${language} a share of ${share}, but no document of it is left`)
    checkTopics(mixture, language, mine, notes)
    const kinds = kindRatios(mixture, language, mine, notes)
    for (const [kind, kindShare] of Object.entries(kinds)) {
      const ofKind = mine.filter((c) => c.kind === kind)
      const ratios = language === 'synthetic' ? natural(ofKind, (c) => c.language) : topicRatios(mixture, ofKind, topics[language] ?? startingRatios(mixture, language, ofKind))
      if (kind === 'web' && language !== 'synthetic') used[language] = ratios
      for (const c of ofKind) {
        const ratio = share * kindShare * (ratios[language === 'synthetic' ? c.language : topicKey(c)] ?? 0)
        if (ratio > 0) strata.push({ language: c.language, kind: c.kind, topic: c.topic, ratio })
      }
    }
  }
  const total = strata.reduce((sum, s) => sum + s.ratio, 0)
  return { strata: strata.map((s) => ({ ...s, ratio: s.ratio / total })), topics: used, notes }
}

const topicKey = (c: Stratum): string => c.topic ?? ''

const kindRatios = (mixture: Mixture, language: string, counts: readonly StratumCount[], notes: string[]): Record<string, number> => {
  const wanted = mixture.kinds[language]
  if (wanted === undefined || language === 'synthetic') return natural(counts, (c) => c.kind)
  const there = new Set<string>(counts.map((c) => c.kind))
  for (const [kind, ratio] of Object.entries(wanted)) {
    if (ratio > 0 && !there.has(kind)) throw new MixtureImpossible(`the mixture gives ${language}/${kind} a share of ${ratio}, but no document of it is left`)
  }
  const left = [...there].filter((kind) => !(kind in wanted))
  if (left.length > 0) notes.push(`${language}: ${left.join(', ')} not asked for, left out`)
  return Object.fromEntries(Object.entries(wanted).filter(([, ratio]) => ratio > 0))
}

const namedTopics = (mixture: Mixture, language: string): Record<string, number> | undefined => (typeof mixture.topics === 'string' ? undefined : mixture.topics[language])

/** A topic with a ratio but no documents is an error; topics left out are left out, and that is said. */
const checkTopics = (mixture: Mixture, language: string, counts: readonly StratumCount[], notes: string[]): void => {
  const named = namedTopics(mixture, language)
  if (named === undefined) return
  const there = new Set(counts.flatMap((c) => c.topic ?? []))
  for (const [topic, ratio] of Object.entries(named)) {
    if (ratio > 0 && !there.has(topic)) throw new MixtureImpossible(`the mixture gives ${language}/${topic} a share of ${ratio}, but no document of it is left`)
  }
  const left = [...there].filter((topic) => !(topic in named))
  if (left.length > 0) notes.push(`${language}: ${left.join(', ')} not asked for, left out`)
}

/** What the mixture names, for a kind that has one of the topics. */
const startingRatios = (mixture: Mixture, language: string, ofKind: readonly StratumCount[]): Record<string, number> | undefined => {
  const named = namedTopics(mixture, language)
  return named !== undefined && ofKind.some((c) => c.topic !== null && (named[c.topic] ?? 0) > 0) ? named : undefined
}

const topicRatios = (mixture: Mixture, counts: readonly StratumCount[], known: Record<string, number> | undefined): Record<string, number> => {
  if (known === undefined || counts.every((c) => known[topicKey(c)] === undefined)) return mixture.topics === 'uniform' ? Object.fromEntries(counts.map((c) => [topicKey(c), 1 / counts.length])) : natural(counts, topicKey)
  // a topic whose documents are all gone gives its share to the others in proportion
  const mine = counts.map((c) => [topicKey(c), known[topicKey(c)] ?? 0] as const)
  const total = mine.reduce((sum, [, r]) => sum + r, 0)
  if (!(total > 0)) throw new MixtureImpossible(`no document is left of the ${counts[0]?.language ?? ''} topics that have a share`)
  return Object.fromEntries(mine.map(([t, r]) => [t, r / total]))
}

/** Shares in proportion to the tokens there are. */
const natural = (counts: readonly StratumCount[], key: (c: StratumCount) => string): Record<string, number> => {
  const total = counts.reduce((sum, c) => sum + c.tokens, 0)
  const shares: Record<string, number> = {}
  for (const c of counts) shares[key(c)] = (shares[key(c)] ?? 0) + c.tokens / total
  return shares
}
