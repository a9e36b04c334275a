import { z } from 'zod'
import type { ArtifactStore } from '../artifact-store/artifact-store.ts'
import { noMarks, type Marks } from './marks.ts'

/** `pins/<name>.json` in the store: work that a person wants kept, whatever else forgets it. */
export const Pin = z.strictObject({
  format: z.literal('cpt-pin/1'),
  what: z.string(),
  fingerprints: z.array(z.string()),
  decisions: z.array(z.string()),
  reason: z.string(),
  by: z.string(),
  at: z.string(),
})
export type Pin = z.infer<typeof Pin>

const keyOf = (name: string): string => `pins/${name}.json`

/** Every pin by name. Throws where one cannot be read: it may name what would be swept. */
export const pinsIn = async (store: Pick<ArtifactStore, 'list' | 'get'>): Promise<Map<string, Pin>> => {
  const keys = (await store.list('pins/')).filter((key) => key.endsWith('.json'))
  const pins = await Promise.all(
    keys.map(async (key) => {
      const bytes = await store.get(key)
      if (bytes === null) return []
      const parsed = Pin.safeParse(JSON.parse(Buffer.from(bytes).toString('utf8')))
      if (!parsed.success) throw new Error(`gc: ${key} is no pin; remove it or mend it`)
      return [[key.slice('pins/'.length, -'.json'.length), parsed.data] as const]
    }),
  )
  return new Map(pins.flat())
}

/** Pins; a pin of the same name is replaced, for a run may have gone on since. */
export const pin = async (store: Pick<ArtifactStore, 'putIfAbsent' | 'remove'>, name: string, what: Omit<Pin, 'format'>): Promise<void> => {
  const bytes = Buffer.from(JSON.stringify({ format: 'cpt-pin/1', ...what } satisfies Pin))
  if (await store.putIfAbsent(keyOf(name), bytes)) return
  await store.remove(keyOf(name))
  await store.putIfAbsent(keyOf(name), bytes)
}

export const unpin = (store: Pick<ArtifactStore, 'remove'>, name: string): Promise<void> => store.remove(keyOf(name))

export const marksOfPins = (pins: Map<string, Pin>): Marks => {
  const marks = noMarks()
  for (const { fingerprints, decisions } of pins.values()) {
    for (const f of fingerprints) marks.fingerprints.add(f)
    for (const d of decisions) marks.decisions.add(d)
  }
  return marks
}
