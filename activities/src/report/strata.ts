import type { Stratum } from '@cpt/contracts/hold-out'
import { languageName } from './numbers.ts'

/** Synthetic text is a group of its own, whatever its language. */
export const groupOf = (s: Pick<Stratum, 'language' | 'kind'>): string => (s.kind === 'synthetic' ? 'synthetic' : s.language)
export const groupTitle = (group: string): string => (group === 'synthetic' ? 'Synthetic' : languageName(group))
export const stratumName = (s: Pick<Stratum, 'kind' | 'topic'>): string => (s.topic === null ? s.kind : `${s.kind} · ${s.topic}`)
export const stratumKey = (s: Stratum): string => JSON.stringify([s.language, s.kind, s.topic])

/** Groups in the order they first appear, the run's target language first. */
export const groupsOf = (strata: readonly Pick<Stratum, 'language' | 'kind'>[], target: string): string[] => {
  const seen = [...new Set(strata.map(groupOf))]
  const rank = (g: string): number => (g === target ? 0 : g === 'synthetic' ? 2 : 1)
  return seen.sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1))
}

/** One colour a group, the same on every chart. */
export const groupColour = (group: string, target: string): string => {
  if (group === target) return 'var(--c2)'
  if (group === 'synthetic') return 'var(--c3)'
  if (group === 'retention') return 'var(--c4)'
  return group === 'en' ? 'var(--c1)' : 'var(--c6)'
}

export const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
