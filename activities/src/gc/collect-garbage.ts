import { rm, rmdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { ArtifactStore } from '../artifact-store/artifact-store.ts'
import type { Config } from '../config.ts'
import { takeInventory, type Inventory } from './inventory.ts'
import { liveJobs } from './live-jobs.ts'
import { union, type Marks } from './marks.ts'
import { marksOfPins, pinsIn } from './pins.ts'
import { closureOf, planSweep, sweptKinds, type Item, type SweptKind } from './plan.ts'
import { reportedRuns } from './reports.ts'

export interface GcSettings {
  /** Nothing that changed more recently is touched. */
  olderThanMs: number
  /** false: says what would be done. */
  apply: boolean
}

export interface GcPlace {
  store: ArtifactStore
  config: Pick<Config, 'workDir' | 'cacheDir' | 'reportsDir' | 'leaseSeconds'>
  /** What runs want, asked anew at each call; null where no server is asked. */
  runs: (() => Promise<Marks>) | null
  now?: () => number
}

export interface GcReport {
  applied: boolean
  swept: { kind: SweptKind; count: number; bytes: number }[]
  kept: { count: number; bytes: number }
  /** Items that somebody wanted while they were swept: they are as they were. */
  saved: number
  /** Records that cannot be read, and so were left alone. */
  unreadable: string[]
}

/** Shortest stillness after which an attempt without an end record is taken for dead, whatever the lease. */
const leastStillMs = 60_000

/**
 * Removes what nobody wants. Of a result the record goes first; then everyone is asked again, and a record that is
 * wanted now is put back, its data untouched; then the data go. Whoever scheduled a stage before the record went is
 * seen by the second asking; whoever comes later finds no record and does the work again. Stopped half-way, the store
 * holds no record without its data, and the next call finds what is left. Throws, with nothing gone, when runs, pins or
 * reports cannot be asked.
 */
export const collectGarbage = async (place: GcPlace, { olderThanMs, apply }: GcSettings): Promise<GcReport> => {
  const { store, config } = place
  const startedMs = (place.now ?? Date.now)()
  // in this order: what becomes live or wanted later is younger than the inventory, or is seen by the second asking
  const live = await livingIn(place)
  const marks = await wantedIn(place)
  const inventory = await takeInventory(store, config)
  const plan = planSweep(inventory, marks, live, startedMs - olderThanMs)
  const saved = apply ? await sweep(place, inventory, plan.items) : new Set<Item>()

  const swept = sweptKinds.map((kind) => {
    const items = plan.items.filter((i) => i.kind === kind && !saved.has(i))
    return { kind, count: items.length, bytes: items.reduce((sum, i) => sum + i.bytes, 0) }
  })
  return { applied: apply, swept: swept.filter((s) => s.count > 0), kept: plan.kept, saved: saved.size, unreadable: inventory.unreadable }
}

const wantedIn = async ({ store, config, runs }: GcPlace): Promise<Marks> => {
  const reports = await reportedRuns(config.reportsDir)
  return union(marksOfPins(await pinsIn(store)), ...reports.map((r) => r.marks), ...(runs === null ? [] : [await runs()]))
}

const livingIn = ({ store, config, now = Date.now }: GcPlace): Promise<Marks> => liveJobs(store, config.workDir, Math.max(leastStillMs, 2000 * config.leaseSeconds), now())

/** Removes the items and returns those that were saved. */
const sweep = async (place: GcPlace, inventory: Inventory, items: Item[]): Promise<Set<Item>> => {
  const { store } = place
  const gone: NonNullable<Item['record']>[] = []
  const putBack = async (records: typeof gone): Promise<void> => {
    for (const { key, bytes } of records) await store.putIfAbsent(key, bytes)
  }
  let [living, wanted] = [new Set<string>(), new Set<string>()]
  try {
    for (const { record } of items) {
      if (record === null) continue
      await store.remove(record.key)
      gone.push(record)
    }
    const jobs = await livingIn(place)
    const marks = union(jobs, await wantedIn(place))
    living = jobs.fingerprints
    wanted = new Set([...closureOf(marks.fingerprints, (f) => inventory.holdings.get(f)?.record?.is ?? null), ...marks.decisions])
  } catch (error) {
    await putBack(gone)
    throw error
  }
  // what lies beside a wanted result is not wanted, unless a job is at it again
  const saved = new Set(items.filter(({ kind, owner }) => owner !== null && (kind === 'left beside results' ? living : wanted).has(owner)))
  await putBack([...saved].flatMap(({ record }) => record ?? []))

  for (const item of items) {
    if (saved.has(item)) continue
    // done anew since its record went, or finished for the first time: what lies there may be part of it
    if (item.kind !== 'left beside results' && item.owner !== null && inventory.holdings.has(item.owner) && (await store.record(item.owner)) !== null) {
      saved.add(item)
      continue
    }
    for (const key of item.keys) await store.remove(key)
    for (const path of item.paths) {
      await rm(path, { recursive: true, force: true })
      await removeIfEmpty(dirname(path), dirname(dirname(path)))
    }
    // a claim that came meanwhile counts on the ones before it
    if (item.claims.length > 0 && (await claimsNow(store, item.claims[0] ?? '')).length === item.claims.length) for (const key of item.claims) await store.remove(key)
  }
  return saved
}

const removeIfEmpty = async (...folders: string[]): Promise<void> => {
  for (const folder of folders) {
    const isGone = await rmdir(folder).then(() => true, () => false)
    if (!isGone) return
  }
}

const claimsNow = (store: ArtifactStore, claim: string): Promise<string[]> => store.list(`${claim.split('/').slice(0, 3).join('/')}/`)
