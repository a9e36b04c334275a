import { readdir, readFile, stat } from 'node:fs/promises'
import { join, relative, sep } from 'node:path'
import type { CommitRecord } from '@cpt/contracts/artifact'
import type { ArtifactStore, StoreEntry } from '../artifact-store/artifact-store.ts'
import { draftsIn } from '../artifact-store/drafts.ts'
import { StoreCorrupt } from '../stage-failure.ts'

/** A file outside the store, on the disk that workers and jobs share. */
export interface DiskFile {
  path: string
  bytes: number
  changedAtMs: number
}

/** One attempt's folder. `isOver`: it has an end record. */
export interface JobEntry {
  path: string
  range: string
  attempt: number
  isOver: boolean
  bytes: number
  changedAtMs: number
}

/** Everything that lies under one fingerprint. */
export interface Holding {
  /** The record as read, with the bytes to put back. */
  record: { key: string; is: CommitRecord; bytes: Uint8Array } | null
  checkpoints: StoreEntry[]
  data: StoreEntry[]
  /** How work was cut into ranges, and who does a unit. */
  ranges: StoreEntry[]
  claims: StoreEntry[]
  jobs: JobEntry[]
}

export interface Inventory {
  holdings: Map<string, Holding>
  decisions: Map<string, StoreEntry[]>
  /** Digests of objects in buckets, remembered so that an object is read for it once; null: of an unreadable note. */
  digests: (StoreEntry & { sha256: string | null })[]
  /** Writes that were never finished. */
  drafts: StoreEntry[]
  askers: { path: string; jobs: string[]; bytes: number; changedAtMs: number }[]
  cached: DiskFile[]
  /** Records that cannot be read: left alone, with all they may name. */
  unreadable: string[]
}

const isDraft = ({ key }: StoreEntry): boolean => key.split('/').at(-1)?.startsWith('.tmp-') === true

/** Lists what lies in the store, in the folder of jobs and in the cache, as it stands now. */
export const takeInventory = async (store: ArtifactStore, { workDir, cacheDir }: { workDir: string; cacheDir: string }): Promise<Inventory> => {
  const inventory: Inventory = { holdings: new Map(), decisions: new Map(), digests: [], drafts: [], askers: [], cached: await filesUnder(cacheDir), unreadable: [] }
  const holdingOf = (fingerprint: string): Holding => {
    const held = inventory.holdings.get(fingerprint) ?? { record: null, checkpoints: [], data: [], ranges: [], claims: [], jobs: [] }
    inventory.holdings.set(fingerprint, held)
    return held
  }
  const each = async (prefix: string, put: (entry: StoreEntry, fingerprint: string) => void): Promise<void> => {
    for (const entry of await store.entries(prefix)) {
      const fingerprint = (entry.key.split('/')[2] ?? '').replace(/\.json$/, '')
      if (isDraft(entry)) inventory.drafts.push(entry)
      else if (/^[0-9a-f]{64}$/.test(fingerprint)) put(entry, fingerprint)
    }
  }
  for (const kind of ['checkpoints', 'data', 'ranges', 'claims'] as const) await each(`${kind}/`, (entry, f) => holdingOf(f)[kind].push(entry))
  await each('units/', (entry, f) => holdingOf(f).ranges.push(entry))
  inventory.drafts.push(...(await store.entries(`${draftsIn('')}/`)))
  for (const entry of await store.entries('decisions/')) {
    const folder = entry.key.split('/')[1] ?? ''
    if (isDraft(entry)) inventory.drafts.push(entry)
    else inventory.decisions.set(folder, [...(inventory.decisions.get(folder) ?? []), entry])
  }
  for (const entry of await store.entries('digests/')) {
    if (isDraft(entry)) inventory.drafts.push(entry)
    else inventory.digests.push({ ...entry, sha256: digestIn(await store.get(entry.key)) })
  }
  for (const [fingerprint, jobs] of await jobsUnder(workDir)) holdingOf(fingerprint).jobs = jobs
  inventory.askers = await askersUnder(workDir)
  // records last: whatever is committed while we look has its record here
  const records: [string, string][] = []
  await each('commits/', (entry, f) => records.push([entry.key, f]))
  await Promise.all(records.map(async ([key, f]) => {
    const bytes = await store.get(key)
    if (bytes === null) return
    try {
      const is = await store.record(f)
      if (is !== null) holdingOf(f).record = { key, is, bytes }
    } catch (error) {
      if (!(error instanceof StoreCorrupt)) throw error
      inventory.unreadable.push(f)
    }
  }))
  return inventory
}

const digestIn = (note: Uint8Array | null): string | null => /"sha256":"([0-9a-f]{64})"/.exec(Buffer.from(note ?? []).toString('utf8'))?.[1] ?? null

/** Attempts by fingerprint, from `jobs/<fp[0:2]>/<fp>/<range>/<attempt>/`. */
export const jobsUnder = async (workDir: string): Promise<Map<string, JobEntry[]>> => {
  const root = join(workDir, 'jobs')
  const jobs = new Map<string, Map<string, JobEntry>>()
  for (const file of await filesUnder(root)) {
    const [, fingerprint = '', range = '', attempt = '', ...rest] = relative(root, file.path).split(sep)
    if (rest.length === 0) continue
    const path = join(root, fingerprint.slice(0, 2), fingerprint, range, attempt)
    const own = jobs.get(fingerprint) ?? new Map<string, JobEntry>()
    const entry = own.get(path) ?? { path, range, attempt: Number(attempt), isOver: false, bytes: 0, changedAtMs: 0 }
    own.set(path, { ...entry, isOver: entry.isOver || rest.join('/') === 'end.json', bytes: entry.bytes + file.bytes, changedAtMs: Math.max(entry.changedAtMs, file.changedAtMs) })
    jobs.set(fingerprint, own)
  }
  return new Map([...jobs].map(([f, own]) => [f, [...own.values()]]))
}

/** Every asker's folder with the jobs that it points at. */
const askersUnder = async (workDir: string): Promise<Inventory['askers']> => {
  const root = join(workDir, 'askers')
  const askers = new Map<string, Inventory['askers'][number]>()
  for (const file of await filesUnder(root)) {
    const path = join(root, relative(root, file.path).split(sep)[0] ?? '')
    const own = askers.get(path) ?? { path, jobs: [], bytes: 0, changedAtMs: 0 }
    const text = await readFile(file.path, 'utf8').catch(() => '')
    askers.set(path, { path, jobs: [...own.jobs, ...[...text.matchAll(/"path":("(?:[^"\\]|\\.)*")/g)].map(([, p = '""']) => JSON.parse(p) as string)], bytes: own.bytes + file.bytes, changedAtMs: Math.max(own.changedAtMs, file.changedAtMs) })
  }
  return [...askers.values()]
}

/** Every file under a folder; none where there is no such folder. */
const filesUnder = async (folder: string): Promise<DiskFile[]> => {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((error: unknown) => {
    if (error instanceof Error && (error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  })
  const files = await Promise.all(
    entries.filter((e) => e.isFile()).map(async (e) => {
      const path = join(e.parentPath, e.name)
      const is = await stat(path).catch(() => null) // it may go while we look
      return is === null ? [] : [{ path, bytes: is.size, changedAtMs: is.mtimeMs }]
    }),
  )
  return files.flat()
}
