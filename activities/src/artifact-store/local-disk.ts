import { createHash, randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { link, mkdir, open, readdir, readFile, realpath, rm, stat } from 'node:fs/promises'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { CommitRecord, Manifest, type ArtifactRef } from '@cpt/contracts/artifact'
import { sha256, treeDigest } from '../identity.ts'
import { StoreCorrupt, UnknownPath } from '../stage-failure.ts'
import type { ArtifactStore } from './artifact-store.ts'

const commitKey = (fingerprint: string): string => `commits/${fingerprint.slice(0, 2)}/${fingerprint}.json`

/** The store on a local (or shared POSIX) disk: put-if-absent is link(2) after fsync. */
export const localDiskStore = (roots: Readonly<Record<string, string>>): ArtifactStore & { root: string } => {
  const root = resolve(roots['store'] ?? '')
  const at = (key: string): string => under(root, key)

  const store: ArtifactStore & { root: string } = {
    root,
    async putIfAbsent(key, data) {
      return await putFileIfAbsent(at(key), data)
    },
    async get(key) {
      return await orNull(readFile(at(key)))
    },
    async list(prefix) {
      const folder = prefix.endsWith('/') ? prefix : `${dirname(prefix)}/`
      const entries = await orNull(readdir(at(folder), { recursive: true, withFileTypes: true }))
      return (entries ?? [])
        .filter((e) => e.isFile() && !e.name.startsWith('.tmp-'))
        .map((e) => relative(root, join(e.parentPath, e.name)).split(sep).join('/'))
        .filter((key) => key.startsWith(prefix))
        .sort()
    },
    async entries(prefix) {
      const files = ((await orNull(readdir(at(prefix), { recursive: true, withFileTypes: true }))) ?? []).filter((e) => e.isFile())
      const found = await Promise.all(
        files.map(async (e) => {
          const path = join(e.parentPath, e.name)
          const is = await orNull(stat(path)) // it may go while we look
          return is === null ? [] : [{ key: relative(root, path).split(sep).join('/'), bytes: is.size, changedAtMs: is.mtimeMs }]
        }),
      )
      return found.flat().sort((a, b) => (a.key < b.key ? -1 : 1))
    },
    async size(path) {
      return (await orNull(stat(at(path))))?.size ?? null
    },
    async remove(key) {
      await rm(at(key), { force: true })
    },
    async record(fingerprint) {
      const bytes = await store.get(commitKey(fingerprint))
      return bytes === null ? null : recordIn(bytes, fingerprint)
    },
    async commit(record) {
      const won = await store.putIfAbsent(commitKey(record.fingerprint), Buffer.from(JSON.stringify(record)))
      const held = won ? record : await store.record(record.fingerprint)
      if (held === null) throw new StoreCorrupt(`store: the record of ${record.fingerprint} vanished while it was committed`)
      return held
    },
    async read(ref) {
      const path = await pathOf(store, roots, ref.uri)
      const bytes = await orNull(readFile(path))
      if (bytes === null) throw new StoreCorrupt(`store: ${ref.uri} is missing; expected it at ${path}`)
      const found = sha256(bytes)
      if (found !== ref.sha256) throw new StoreCorrupt(`store: ${ref.uri} has sha256 ${found}, expected ${ref.sha256}`)
      return bytes
    },
    async manifest(ref) {
      return Manifest.parse(JSON.parse(Buffer.from(await store.read(ref)).toString('utf8')))
    },
    async write(fingerprint, attempt, name, data) {
      const path = `data/${fingerprint.slice(0, 2)}/${fingerprint}/${attempt}/${name}`
      await mkdir(dirname(at(path)), { recursive: true })
      await writeDurably(at(path), data)
      await syncFolder(dirname(at(path)))
      return { name, path, sha256: sha256(data), bytes: data.byteLength }
    },
  }
  return store
}

/** Creates the file `path` with `data`, whole and durable, or returns false when it exists: link(2) after fsync. */
export const putFileIfAbsent = async (path: string, data: Uint8Array): Promise<boolean> => {
  await mkdir(dirname(path), { recursive: true })
  const tmp = join(dirname(path), `.tmp-${process.pid}-${randomUUID()}`)
  try {
    await writeDurably(tmp, data)
    await link(tmp, path)
  } catch (e) {
    if (isErrno(e, 'EEXIST')) return false
    throw e
  } finally {
    await rm(tmp, { force: true })
  }
  await syncFolder(dirname(path))
  return true
}

const recordIn = (bytes: Uint8Array, fingerprint: string): CommitRecord => {
  try {
    return CommitRecord.parse(JSON.parse(Buffer.from(bytes).toString('utf8')))
  } catch (e) {
    throw new StoreCorrupt(`store: ${commitKey(fingerprint)} is not a commit record: ${String(e).slice(0, 200)}`)
  }
}

/** Where a reference's file lies on this machine. Throws UnknownPath for a name that was never committed. */
export const pathOf = async (store: ArtifactStore & { root: string }, roots: Readonly<Record<string, string>>, uri: string): Promise<string> => {
  const colon = uri.indexOf(':')
  const [rootName, rest] = [uri.slice(0, colon), uri.slice(colon + 1)]
  const base = roots[rootName]
  if (base === undefined) throw new UnknownPath(`${uri}: unknown root ${rootName}; this worker knows ${Object.keys(roots).join(', ')}`)
  if (rootName !== 'store') return await withoutLeaving(base, under(base, rest))
  const slash = rest.indexOf('/')
  const [fingerprint, name] = [rest.slice(0, slash), rest.slice(slash + 1)]
  const record = await store.record(fingerprint)
  if (record === null) throw new UnknownPath(`${uri}: no commit record of ${fingerprint}`)
  if (!name.endsWith('/')) {
    const file = record.files.find((f) => f.name === name)
    if (file === undefined) throw new UnknownPath(`${uri}: the commit has no file ${name}`)
    return under(store.root, file.path)
  }
  const first = record.files.find((f) => f.name.startsWith(name))
  if (first === undefined) throw new UnknownPath(`${uri}: the commit has no files under ${name}`)
  return under(store.root, first.path.slice(0, first.path.length - first.name.length + name.length))
}

/** Reference to a file or (trailing slash) folder under a configured root, its digest taken now. */
export const refUnderRoot = async (roots: Readonly<Record<string, string>>, uri: string): Promise<ArtifactRef> => {
  const colon = uri.indexOf(':')
  const base = roots[uri.slice(0, colon)]
  if (base === undefined) throw new UnknownPath(`${uri}: unknown root; this worker knows ${Object.keys(roots).join(', ')}`)
  const path = under(base, uri.slice(colon + 1))
  const found = await orNull(stat(path))
  if (found === null) throw new UnknownPath(`${uri}: no such file or folder (looked at ${path})`)
  await withoutLeaving(base, path)
  if (found.isFile()) return { uri, sha256: await digestFile(path), bytes: found.size }
  if (!found.isDirectory()) throw new UnknownPath(`${uri}: expected a file or folder`)
  const all = await readdir(path, { recursive: true, withFileTypes: true })
  const link = all.find((e) => e.isSymbolicLink())
  if (link !== undefined) throw new UnknownPath(`${uri}: ${link.name} is a symbolic link; a folder's digest is of files, so copy what it points to`)
  const entries = all.filter((e) => e.isFile())
  const files = await Promise.all(
    entries.map(async (e) => {
      const file = join(e.parentPath, e.name)
      return { name: relative(path, file).split(sep).join('/'), sha256: await digestFile(file), bytes: (await stat(file)).size }
    }),
  )
  return { uri: uri.endsWith('/') ? uri : `${uri}/`, sha256: treeDigest(files), bytes: files.reduce((sum, f) => sum + f.bytes, 0) }
}

/** Joins and refuses to leave the root. */
export const under = (base: string, rest: string): string => {
  const root = resolve(base)
  const path = resolve(root, rest)
  if (path !== root && !path.startsWith(root + sep)) throw new UnknownPath(`${rest}: leaves its root`)
  return path
}

/** The path itself; refuses a symbolic link inside a root that leads out of it. */
const withoutLeaving = async (base: string, path: string): Promise<string> => {
  const real = await orNull(realpath(path))
  if (real !== null) under(await realpath(base), real)
  return path
}

const digestFile = async (path: string): Promise<string> => {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}

const writeDurably = async (path: string, data: Uint8Array): Promise<void> => {
  const file = await open(path, 'wx')
  try {
    await file.writeFile(data)
    await file.sync()
  } finally {
    await file.close()
  }
}

const syncFolder = async (path: string): Promise<void> => {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

const isErrno = (e: unknown, code: string): boolean => e instanceof Error && (e as NodeJS.ErrnoException).code === code

const orNull = async <T>(promise: Promise<T>): Promise<T | null> => {
  try {
    return await promise
  } catch (e) {
    if (isErrno(e, 'ENOENT') || isErrno(e, 'ENOTDIR')) return null
    throw e
  }
}
