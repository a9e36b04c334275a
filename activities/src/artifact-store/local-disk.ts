import { link, mkdir, open, readdir, readFile, rm, rmdir, stat } from 'node:fs/promises'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { StoreCorrupt } from '../stage-failure.ts'
import type { ArtifactStore } from './artifact-store.ts'
import { storeOver, type KeyStore } from './commits.ts'
import { draftName, draftsIn } from './drafts.ts'
import { isErrno, orNull } from './roots.ts'
import type { S3Place } from './bucket.ts'

/** The store on a local (or shared POSIX) disk: put-if-absent is link(2) after fsync. */
export const localDiskStore = (roots: Readonly<Record<string, string>>, buckets: Readonly<Record<string, S3Place>> = {}): ArtifactStore => storeOver(keysOnDisk(resolve(roots['store'] ?? '')), roots, buckets)

const keysOnDisk = (root: string): KeyStore => {
  const at = (key: string): string => join(root, key)
  const filesUnder = async (folder: string): Promise<{ path: string; key: string; name: string }[]> => {
    const entries = (await orNull(readdir(at(folder), { recursive: true, withFileTypes: true }))) ?? []
    const files = entries.filter((e) => e.isFile()).map((e) => ({ name: e.name, path: join(e.parentPath, e.name) }))
    return files.map((f) => ({ ...f, key: relative(root, f.path).split(sep).join('/') })).sort((a, b) => (a.key < b.key ? -1 : 1))
  }
  return {
    place: root,
    putIfAbsent: (key, data) => putFileIfAbsent(at(key), data, draftsIn(root)),
    get: (key) => orNull(readFile(at(key))),
    async list(prefix) {
      const files = await filesUnder(prefix.endsWith('/') ? prefix : dirname(prefix))
      return files.filter((f) => !f.name.startsWith('.tmp-') && f.key.startsWith(prefix)).map((f) => f.key)
    },
    async entries(prefix) {
      const found = await Promise.all(
        (await filesUnder(prefix)).map(async ({ path, key }) => {
          const is = await orNull(stat(path)) // it may go while we look
          return is === null ? [] : [{ key, bytes: is.size, changedAtMs: is.mtimeMs }]
        }),
      )
      return found.flat()
    },
    size: async (path) => (await orNull(stat(at(path))))?.size ?? null,
    async remove(key) {
      await rm(at(key), { force: true })
      // keys have no folders: one that only this key needed goes with it, the top two stay for those to come
      for (let folder = dirname(key); folder.split('/').length > 2 && (await removeEmpty(at(folder))); folder = dirname(folder));
    },
    async localFile({ path, bytes }) {
      const found = (await orNull(stat(at(path))))?.size ?? null
      if (found !== bytes) throw new StoreCorrupt(`store: ${at(path)} ${found === null ? 'is missing' : `has ${found} bytes`}; expected ${bytes} bytes`)
      return at(path)
    },
  }
}

/**
 * Creates the file `path` with `data`, whole and durable, or returns false when it exists: link(2) after fsync. Until then
 * the data lie in the folder `drafts`, on the same file system; what a killed process leaves there is swept, see drafts.ts.
 */
export const putFileIfAbsent = async (path: string, data: Uint8Array, drafts = dirname(path)): Promise<boolean> => {
  const folder = dirname(path)
  const tmp = join(drafts, await draftName())
  let made: string | undefined
  const write = async (): Promise<boolean> => {
    made = (await mkdir(folder, { recursive: true })) ?? made
    await mkdir(drafts, { recursive: true })
    await writeDurably(tmp, data)
    return await linkIfAbsent(tmp, path)
  }
  let won: boolean
  try {
    won = await write().catch(async (e: unknown) => {
      if (!isErrno(e, 'ENOENT')) throw e
      await rm(tmp, { force: true })
      return await write() // its folder was empty, and went with the last of its files
    })
  } finally {
    await rm(tmp, { force: true })
  }
  // the loser too acts on what lies there, so it must not vanish in a power cut
  await syncFolder(folder)
  if (made !== undefined) for (let above = folder; above !== dirname(made) && above !== dirname(above); ) await syncFolder((above = dirname(above)))
  return won
}

const removeEmpty = async (folder: string): Promise<boolean> => {
  try {
    await rmdir(folder)
    return true
  } catch (e) {
    if (isErrno(e, 'ENOTEMPTY') || isErrno(e, 'EEXIST') || isErrno(e, 'ENOENT')) return false
    throw e
  }
}

const linkIfAbsent = async (tmp: string, path: string): Promise<boolean> => {
  try {
    await link(tmp, path)
    return true
  } catch (e) {
    if (['EPERM', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP'].some((code) => isErrno(e, code))) throw new Error(`store: the file system of ${dirname(path)} makes no hard links, on which commits rest (${String(e)}); put the store on a local or shared POSIX file system, see CPT_STORE`, { cause: e })
    if (!isErrno(e, 'EEXIST')) throw e
    // a file server that repeats a request whose answer got lost meets the link that it made itself
    return (await stat(tmp)).nlink > 1
  }
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
