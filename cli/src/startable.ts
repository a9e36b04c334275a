import { AlmrLrSweepInput } from '@cpt/contracts/almr-lr-sweep'
import { CorpusPreparationInput, CptRunInput } from '@cpt/contracts/cpt-run'
import type { z } from 'zod'

/** The workflows that a person or a schedule starts with one JSON object: its schema, the beginning of their ids, and the name of what runs with no input. */
export const startable = {
  cptRun: { input: CptRunInput, prefix: 'cpt', presetName: 'quickstart' },
  almrLrSweep: { input: AlmrLrSweepInput, prefix: 'sweep', presetName: 'almr-lr' },
  corpusPreparation: { input: CorpusPreparationInput, prefix: 'corpus', presetName: 'quickstart' },
} as const satisfies Record<string, { input: z.ZodType; prefix: string; presetName: string }>
export type Startable = keyof typeof startable
export type InputOf<T extends Startable> = z.input<(typeof startable)[T]['input']>
export const startableTypes = Object.keys(startable) as [Startable, ...Startable[]]

export const workflowIdOf = (type: Startable, name: string): string => `${startable[type].prefix}/${name}`

/** Beginnings of the workflow ids that a bare name may mean. */
const prefixes = [...startableTypes.map((type) => startable[type].prefix), 'transfer', 'dry']

/** The workflow ids that a person may mean by a name: one of ours, or an id typed in the UI. */
export const idsMeant = (named: string): string[] => {
  const isWhole = prefixes.some((prefix) => named.startsWith(`${prefix}/`))
  return isWhole ? [named] : [named, ...prefixes.map((prefix) => `${prefix}/${named}`)]
}
