import type { ArtifactRef, CommitRecord, Manifest } from '@cpt/contracts/artifact'

/** What lies at a key: its size, and when it last changed by the store's own clock. */
export interface StoreEntry {
  key: string
  bytes: number
  changedAtMs: number
}

/** Where results live, as it is named in a message: a folder, or s3://bucket/prefix. */
export type Place = string

/**
 * Where results live. Readers trust commit records alone; a record is created only if absent, and the loser of a race
 * reads the winner. One case suite (artifact-store.cases.ts) holds for every implementation.
 */
export interface ArtifactStore {
  readonly place: Place
  /**
   * Creates `key` with `data`, whole and durable, or returns false when it exists. An answer that got lost is looked up,
   * so true and false are always right; throws where the storage could not be asked.
   */
  putIfAbsent(key: string, data: Uint8Array): Promise<boolean>
  /** The bytes at `key`, or null. */
  get(key: string): Promise<Uint8Array | null>
  /** Keys that start with `prefix`, sorted. */
  list(prefix: string): Promise<string[]>
  /** Everything under a prefix that ends in `/`, unfinished writes too, sorted by key. */
  entries(prefix: string): Promise<StoreEntry[]>
  /** Size of the data at `path`, or null where there are none. */
  size(path: string): Promise<number | null>
  /** Removes one key; a missing key is no error. */
  remove(key: string): Promise<void>
  /** The commit record of a fingerprint, or null. */
  record(fingerprint: string): Promise<CommitRecord | null>
  /** Commits `record` unless it is there already; returns the record that holds. */
  commit(record: CommitRecord): Promise<CommitRecord>
  /** The bytes a reference names, digest checked. Throws StoreCorrupt. */
  read(ref: ArtifactRef): Promise<Uint8Array>
  manifest(ref: ArtifactRef): Promise<Manifest>
  /**
   * Path on this machine of the file or (trailing slash) folder that a reference names: where it lies, or a verified
   * copy in the cache where the store is remote. Throws UnknownPath for what was never committed, StoreCorrupt for what
   * is gone or not the bytes committed.
   */
  localPath(ref: Pick<ArtifactRef, 'uri'>): Promise<string>
  /** Reference to what `uri` names: a committed file or folder by its record, one under another root by its digest now. */
  refTo(uri: string): Promise<ArtifactRef>
  /** Files of a folder (or of a bucket's prefix) under a root by their paths in it; null where `uri` names no folder. */
  filesUnder(uri: string): Promise<{ name: string; isFile: boolean }[] | null>
  /** Writes a file of an attempt and returns its entry for the commit record. */
  write(fingerprint: string, attempt: string, name: string, data: Uint8Array): Promise<CommitRecord['files'][number]>
}
