import { readFile } from 'node:fs/promises'
import { CommitRecord, Manifest, type ArtifactRef, type CommittedFile } from '@cpt/contracts/artifact'
import { sha256, treeDigest } from '../identity.ts'
import { StoreCorrupt, UnknownPath } from '../stage-failure.ts'
import type { ArtifactStore } from './artifact-store.ts'
import { bucketRoot, type BucketRoot } from './bucket-root.ts'
import { filesInFolder, orNull, pathUnderRoot, refUnderRoot, splitUri } from './roots.ts'
import type { S3Place } from './bucket.ts'

/** Keys and their bytes, which is all that disks and buckets have in common; keys reach it checked. */
export interface KeyStore extends Pick<ArtifactStore, 'place' | 'putIfAbsent' | 'get' | 'list' | 'entries' | 'size' | 'remove'> {
  /** Path on this machine of a committed file's bytes; the path ends in the file's own. Throws StoreCorrupt. */
  localFile(file: CommittedFile): Promise<string>
}

const commitKey = (fingerprint: string): string => `commits/${fingerprint.slice(0, 2)}/${fingerprint}.json`

/** The artifact store over keys and bytes: what commit records and references mean is said here, once for all storage. */
export const storeOver = (keys: KeyStore, roots: Readonly<Record<string, string>>, buckets: Readonly<Record<string, S3Place>> = {}): ArtifactStore => {
  const bucketRoots = new Map(Object.entries(buckets).map(([name, place]) => [name, bucketRoot(place, keys)]))
  const bucketOf = (uri: string): BucketRoot | undefined => bucketRoots.get(splitUri(uri)[0])

  const record: ArtifactStore['record'] = async (fingerprint) => {
    const bytes = await keys.get(checkedKey(commitKey(fingerprint)))
    return bytes === null ? null : recordIn(bytes, fingerprint)
  }

  /** The files that `store:<fingerprint>/<name>` names, and the part of their names that it says already. */
  const committedAt = async (uri: string): Promise<{ files: [CommittedFile, ...CommittedFile[]]; prefix: string }> => {
    const [, rest] = splitUri(uri)
    const slash = rest.indexOf('/')
    const [fingerprint, name] = [rest.slice(0, Math.max(0, slash)), rest.slice(slash + 1)]
    const found = await record(fingerprint)
    if (found === null) throw new UnknownPath(`${uri}: no commit record of ${fingerprint}`)
    const isFolder = name.endsWith('/')
    const [first, ...others] = found.files.filter((f) => (isFolder ? f.name.startsWith(name) : f.name === name))
    if (first === undefined) throw new UnknownPath(isFolder ? `${uri}: the commit has no files under ${name}` : `${uri}: the commit has no file ${name}`)
    return { files: [first, ...others], prefix: isFolder ? name : '' }
  }

  const store: ArtifactStore = {
    place: keys.place,
    record,
    putIfAbsent: async (key, data) => await keys.putIfAbsent(checkedKey(key), data),
    get: async (key) => await keys.get(checkedKey(key)),
    list: async (prefix) => await keys.list(checkedPrefix(prefix)),
    entries: async (prefix) => await keys.entries(checkedPrefix(prefix)),
    size: async (path) => await keys.size(checkedKey(path)),
    remove: async (key) => await keys.remove(checkedKey(key)),
    async commit(mine) {
      const won = await store.putIfAbsent(commitKey(mine.fingerprint), Buffer.from(JSON.stringify(mine)))
      const held = won ? mine : await record(mine.fingerprint)
      if (held === null) throw new StoreCorrupt(`store: the record of ${mine.fingerprint} vanished while it was committed`)
      return held
    },
    async read(ref) {
      const isCommitted = ref.uri.startsWith('store:')
      const path = isCommitted ? (await committedAt(ref.uri)).files[0].path : await pathUnderRoot(roots, ref.uri)
      const bytes = isCommitted ? await store.get(path) : await orNull(readFile(path))
      if (bytes === null) throw new StoreCorrupt(`store: ${ref.uri} is missing; expected it at ${isCommitted ? `${keys.place}/${path}` : path}`)
      const found = sha256(bytes)
      if (found !== ref.sha256) throw new StoreCorrupt(`store: ${ref.uri} has sha256 ${found}, expected ${ref.sha256}`)
      return bytes
    },
    async manifest(ref) {
      return Manifest.parse(JSON.parse(Buffer.from(await store.read(ref)).toString('utf8')))
    },
    async localPath({ uri }) {
      if (!uri.startsWith('store:')) return await pathUnderRoot(roots, uri)
      const { files, prefix } = await committedAt(uri)
      for (const file of files) checkedKey(file.path)
      const [first] = await Promise.all(files.map((file) => keys.localFile(file)))
      return prefix === '' ? (first ?? '') : (first ?? '').slice(0, (first ?? '').length - files[0].name.length + prefix.length)
    },
    async refTo(uri): Promise<ArtifactRef> {
      if (!uri.startsWith('store:')) return await (bucketOf(uri)?.refTo(uri) ?? refUnderRoot(roots, uri))
      const { files, prefix } = await committedAt(uri)
      if (prefix === '') return { uri, sha256: files[0].sha256, bytes: files[0].bytes }
      return { uri, sha256: treeDigest(files.map((f) => ({ name: f.name.slice(prefix.length), sha256: f.sha256 }))), bytes: files.reduce((sum, f) => sum + f.bytes, 0) }
    },
    async filesUnder(uri) {
      return await (bucketOf(uri)?.filesUnder(uri) ?? filesInFolder(await pathUnderRoot(roots, uri)))
    },
    async write(fingerprint, attempt, name, data) {
      const path = `data/${fingerprint.slice(0, 2)}/${fingerprint}/${attempt}/${name}`
      if (!(await store.putIfAbsent(path, data))) throw new Error(`store: ${keys.place}/${path} exists already; an attempt writes each of its files once`)
      return { name, path, sha256: sha256(data), bytes: data.byteLength }
    },
  }
  return store
}

/** The key itself; refuses one that would leave the store or mean another key. */
const checkedKey = (key: string): string => {
  if (key.includes('\0') || key.split('/').some((part) => part === '' || part === '.' || part === '..')) throw new UnknownPath(`${key}: leaves its root`)
  return key
}

const checkedPrefix = (prefix: string): string => (prefix === '' ? '' : checkedKey(prefix.replace(/\/$/, '')) && prefix)

const recordIn = (bytes: Uint8Array, fingerprint: string): CommitRecord => {
  try {
    return CommitRecord.parse(JSON.parse(Buffer.from(bytes).toString('utf8')))
  } catch (e) {
    throw new StoreCorrupt(`store: ${commitKey(fingerprint)} is not a commit record: ${String(e).slice(0, 200)}`)
  }
}
