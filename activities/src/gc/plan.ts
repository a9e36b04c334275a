import { z } from 'zod'
import type { CommitRecord } from '@cpt/contracts/artifact'
import { parentsOf } from '../identity.ts'
import type { Holding, Inventory } from './inventory.ts'
import { marksIn, type Marks } from './marks.ts'

/** What is swept, as the table of `cpt gc` names it. */
export const sweptKinds = ['results', 'unfinished work', 'left beside results', 'folders of ended jobs', 'decisions', 'askers', 'unfinished writes', 'cached copies', 'digests of objects'] as const
export type SweptKind = (typeof sweptKinds)[number]

/** One thing to sweep, in the order in which its parts are removed. */
export interface Item {
  kind: SweptKind
  /** Fingerprint or decisions folder; whoever wants it again saves the item. null: nobody can. */
  owner: string | null
  record: Holding['record']
  keys: string[]
  paths: string[]
  /** Removed last, and only if no further attempt was claimed meanwhile. */
  claims: string[]
  bytes: number
}

export interface Plan {
  items: Item[]
  kept: { count: number; bytes: number }
}

const Units = z.object({ units: z.array(z.string()) })

/** Marked work and all it stands on: parents and inputs, and the units of merged results. */
export const closureOf = (roots: Iterable<string>, recordOf: (fingerprint: string) => CommitRecord | null): Set<string> => {
  const kept = new Set<string>()
  const left = [...roots]
  for (let f = left.pop(); f !== undefined; f = left.pop()) {
    if (kept.has(f)) continue
    kept.add(f)
    const record = recordOf(f)
    if (record !== null) left.push(...record.parents, ...parentsOf(record.request), ...parentsOf(record.result), ...(Units.safeParse(record.result).data?.units ?? []))
  }
  return kept
}

/** What may go: all that is older than the grace, and that neither a mark nor a living job nor younger work stands on. */
export const planSweep = (inventory: Inventory, marks: Marks, live: Marks, oldestKeptMs: number, oldestDraftMs = oldestKeptMs): Plan => {
  const { holdings } = inventory
  const recordOf = (f: string): CommitRecord | null => holdings.get(f)?.record?.is ?? null
  const young = [...holdings].filter(([, { record }]) => record !== null && Date.parse(record.is.committedAt) > oldestKeptMs).map(([f]) => f)
  const kept = closureOf([...marks.fingerprints, ...live.fingerprints, ...young, ...inventory.unreadable], recordOf)
  const isOld = ({ changedAtMs }: { changedAtMs: number }): boolean => changedAtMs <= oldestKeptMs

  const items = [...holdings].flatMap(([f, holding]): Item[] => {
    if (kept.has(f)) return holding.record === null || live.fingerprints.has(f) ? [] : besides(f, holding, isOld)
    const { record, checkpoints, data, ranges, claims, jobs } = holding
    if (record === null && ![...checkpoints, ...data, ...ranges, ...claims, ...jobs].every(isOld)) return []
    return [item(record === null ? 'unfinished work' : 'results', f, { record, keys: [...checkpoints, ...data, ...ranges], jobs, claims })]
  })
  for (const [folder, keys] of inventory.decisions) if (!marks.decisions.has(folder) && keys.every(isOld)) items.push(item('decisions', folder, { keys }))
  const jobsThatStay = new Set([...holdings.values()].flatMap((h) => h.jobs.filter((j) => !j.isOver || !isOld(j)).map((j) => j.path)))
  for (const asker of inventory.askers) if (isOld(asker) && !asker.jobs.some((path) => jobsThatStay.has(path))) items.push(item('askers', null, { paths: [asker] }))
  for (const draft of inventory.drafts) if (draft.changedAtMs <= oldestDraftMs) items.push(item('unfinished writes', null, { keys: [draft] }))
  for (const copy of inventory.cached) {
    const of = /(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])/.exec(copy.path)?.[0] ?? null
    if (isOld(copy) && (of === null || !kept.has(of))) items.push(item('cached copies', of, { paths: [copy] }))
  }
  const results = [...kept].flatMap((f) => recordOf(f) ?? [])
  // a run that begins again looks its sources up by these: they stay while a run, pin, report or kept result names the source
  const named = new Set([...marks.fingerprints, ...live.fingerprints, ...results.flatMap((r) => [...marksIn(JSON.stringify(r.request)).fingerprints])])
  for (const digest of inventory.digests) if (isOld(digest) && (digest.sha256 === null || !named.has(digest.sha256))) items.push(item('digests of objects', digest.sha256, { keys: [digest] }))
  return { items, kept: { count: results.length, bytes: results.reduce((sum, r) => sum + r.files.reduce((s, file) => s + file.bytes, 0), 0) } }
}

/** What lies beside a committed result and is no part of it: losing attempts, the finished phase's checkpoints, ended jobs. */
const besides = (fingerprint: string, { record, checkpoints, data, jobs }: Holding, isOld: (x: { changedAtMs: number }) => boolean): Item[] => {
  const part = new Set(record?.is.files.map((file) => file.path))
  const spare = [...checkpoints, ...data.filter((d) => !part.has(d.key))].filter(isOld)
  const over = jobs.filter((j) => j.isOver && isOld(j))
  return [
    ...(spare.length === 0 ? [] : [item('left beside results', fingerprint, { keys: spare })]),
    ...(over.length === 0 ? [] : [item('folders of ended jobs', null, { paths: over })]),
  ]
}

interface Sized {
  bytes: number
}
interface Parts {
  record?: Holding['record']
  keys?: (Sized & { key: string })[]
  paths?: (Sized & { path: string })[]
  jobs?: Holding['jobs']
  claims?: (Sized & { key: string })[]
}

const item = (kind: SweptKind, owner: string | null, { record = null, keys = [], paths = [], jobs = [], claims = [] }: Parts): Item => ({
  kind, owner, record,
  keys: keys.map((k) => k.key),
  paths: [...paths, ...jobs].map((p) => p.path),
  claims: claims.map((c) => c.key),
  bytes: (record?.bytes.byteLength ?? 0) + [...keys, ...paths, ...jobs, ...claims].reduce((sum, x) => sum + x.bytes, 0),
})
