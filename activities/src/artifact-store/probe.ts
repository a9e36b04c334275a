import { randomUUID } from 'node:crypto'
import type { ArtifactStore } from './artifact-store.ts'

const racers = 8

/**
 * Puts one throw-away key twice, and another one from eight sides at once: what a commit rests on, tried on the store
 * itself. Returns what is wrong, or null where the store creates keys only if absent.
 */
export const probePutIfAbsent = async (store: ArtifactStore): Promise<string | null> => {
  const keys = ['twice', 'raced'].map((what) => `probes/${randomUUID()}-${what}`) as [string, string]
  const tidy = async (): Promise<void> => {
    for (const key of keys) await store.remove(key)
  }
  const wrong = await tryBoth(store, keys).catch(async (e: unknown) => {
    // what went wrong first is what a person has to mend
    await tidy().catch(() => undefined)
    throw e
  })
  await tidy()
  return wrong
}

const tryBoth = async (store: ArtifactStore, [twice, raced]: [string, string]): Promise<string | null> => {
  if (!(await store.putIfAbsent(twice, Buffer.from('first')))) return 'refuses a key that was never written'
  if (await store.putIfAbsent(twice, Buffer.from('second'))) return 'writes over a key that exists: it does not know put-if-absent'
  const held = Buffer.from((await store.get(twice)) ?? '').toString('utf8')
  if (held !== 'first') return `holds ${JSON.stringify(held)} where "first" was written, after a second put was refused`
  const wins = (await Promise.all(Array.from({ length: racers }, (_, i) => store.putIfAbsent(raced, Buffer.from(`racer ${i}`))))).filter(Boolean).length
  return wins === 1 ? null : `let ${wins} of ${racers} simultaneous puts of one key win: it does not know put-if-absent`
}
