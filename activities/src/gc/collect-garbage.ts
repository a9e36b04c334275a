import { rm, rmdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { ArtifactStore } from '../artifact-store/artifact-store.ts'
import type { Config } from '../config.ts'
import { newestCorpora } from '../corpora.ts'
import { takeInventory, type Inventory } from './inventory.ts'
import { liveJobs } from './live-jobs.ts'
import { marksIn, union, type Marks } from './marks.ts'
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
const stillMs = ({ leaseSeconds }: Pick<Config, 'leaseSeconds'>): number => Math.max(leastStillMs, 2000 * leaseSeconds)

/**
 * Removes what nobody wants. Of a result the record goes first; then everyone is asked again, and a record that is
 * wanted now is put back, its data untouched; then the data go. Whoever scheduled a stage before the record went is
 * seen by that asking; whoever comes later finds no record and does the work again. Stopped half-way, the store
 * holds no record without its data, and the next call finds what is left. Throws, with no record lost that was not
 * swept before, when runs, pins or reports cannot be asked.
 */
export const collectGarbage = async (place: GcPlace, { olderThanMs, apply }: GcSettings): Promise<GcReport> => {
  const { store, config } = place
  const startedMs = (place.now ?? Date.now)()
  // in this order: what becomes live or wanted later is younger than the inventory, or is seen by the second asking
  const live = await livingIn(place)
  const marks = await wantedIn(place)
  const inventory = await takeInventory(store, config)
  // a write under way has no lease that would speak for it
  const plan = planSweep(inventory, marks, live, startedMs - olderThanMs, startedMs - Math.max(olderThanMs, stillMs(config)))
  const saved = apply ? await sweep(place, inventory, plan.items) : new Set<Item>()

  const swept = sweptKinds.map((kind) => {
    const items = plan.items.filter((i) => i.kind === kind && !saved.has(i))
    return { kind, count: items.length, bytes: items.reduce((sum, i) => sum + i.bytes, 0) }
  })
  return { applied: apply, swept: swept.filter((s) => s.count > 0), kept: plan.kept, saved: saved.size, unreadable: inventory.unreadable }
}

const wantedIn = async ({ store, config, runs }: GcPlace): Promise<Marks> => {
  const reports = await reportedRuns(config.reportsDir)
  return union(marksOfPins(await pinsIn(store)), marksIn(JSON.stringify(await newestCorpora(store))), ...reports.map((r) => r.marks), ...(runs === null ? [] : [await runs()]))
}

const livingIn = ({ store, config, now = Date.now }: GcPlace): Promise<Marks> => liveJobs(store, config.workDir, stillMs(config), now())

/** Records removed between two askings: few, so that what a run finds just then is soon put back. */
const recordsAtOnce = 100

/** Removes the items and returns those that were saved. */
const sweep = async (place: GcPlace, inventory: Inventory, items: Item[]): Promise<Set<Item>> => {
  const saved = new Set<Item>()
  let isWanted = await askAgain(place, inventory)
  const withRecord = items.filter((i) => i.record !== null)
  for (let i = 0; i < withRecord.length; i += recordsAtOnce) {
    const batch = withRecord.slice(i, i + recordsAtOnce)
    const going = batch.filter((item) => !isWanted(item))
    for (const item of batch) if (!going.includes(item)) saved.add(item)
    isWanted = await removeRecords(place, inventory, going)
    for (const item of going) if (isWanted(item) || !(await removeItem(place.store, item))) saved.add(item)
  }
  for (const item of items) if (item.record === null && (isWanted(item) || !(await removeItem(place.store, item)))) saved.add(item)
  return saved
}

/** Removes the records, then puts those back that somebody wants by now: all of them, when nobody can be asked. */
const removeRecords = async (place: GcPlace, inventory: Inventory, items: Item[]): Promise<(item: Item) => boolean> => {
  const gone: Item[] = []
  const putBack = async (which: Item[]): Promise<void> => {
    for (const { record } of which) if (record !== null) await place.store.putIfAbsent(record.key, record.bytes)
  }
  try {
    for (const item of items) {
      gone.push(item)
      if (item.record !== null) await place.store.remove(item.record.key)
    }
    const isWanted = await askAgain(place, inventory)
    await putBack(gone.filter(isWanted))
    return isWanted
  } catch (error) {
    await putBack(gone)
    throw error
  }
}

/** Whether an item is wanted now, by what was known of records when the inventory was taken. */
const askAgain = async (place: GcPlace, inventory: Inventory): Promise<(item: Item) => boolean> => {
  const living = await livingIn(place)
  const marks = union(living, await wantedIn(place))
  const wanted = new Set([...closureOf(marks.fingerprints, (f) => inventory.holdings.get(f)?.record?.is ?? null), ...marks.decisions])
  // what lies beside a wanted result is not wanted, unless a job is at it again
  return ({ kind, owner }) => owner !== null && (kind === 'left beside results' ? living.fingerprints : wanted).has(owner)
}

/** Removes everything but the record, which has gone before; false when the work was done anew meanwhile. */
const removeItem = async (store: ArtifactStore, { kind, owner, keys, paths, claims }: Item): Promise<boolean> => {
  // what lies there may be part of it
  if (kind !== 'left beside results' && kind !== 'decisions' && owner !== null && (await store.record(owner)) !== null) return false
  for (const key of keys) await store.remove(key)
  for (const path of paths) {
    await rm(path, { recursive: true, force: true })
    await removeIfEmpty(dirname(path), dirname(dirname(path)))
  }
  // a claim that came meanwhile counts on the ones before it
  const [first] = claims
  if (first !== undefined && (await claimsNow(store, first)).length === claims.length) for (const key of claims) await store.remove(key)
  return true
}

const removeIfEmpty = async (...folders: string[]): Promise<void> => {
  for (const folder of folders) {
    const isGone = await rmdir(folder).then(() => true, () => false)
    if (!isGone) return
  }
}

const claimsNow = (store: ArtifactStore, claim: string): Promise<string[]> => store.list(`${claim.split('/').slice(0, 3).join('/')}/`)
