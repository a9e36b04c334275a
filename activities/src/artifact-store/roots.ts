import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, realpath, stat } from 'node:fs/promises'
import { join, relative, resolve, sep } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { ArtifactRef } from '@cpt/contracts/artifact'
import { treeDigest } from '../identity.ts'
import { UnknownPath } from '../stage-failure.ts'

/** The root's name and the rest of `<root>:<rest>`. */
export const splitUri = (uri: string): [root: string, rest: string] => {
  const colon = uri.indexOf(':')
  return [uri.slice(0, Math.max(0, colon)), uri.slice(colon + 1)]
}

/** Path of `<root>:<rest>` under a configured root other than the store. Throws UnknownPath for what leaves it. */
export const pathUnderRoot = async (roots: Readonly<Record<string, string>>, uri: string): Promise<string> => {
  const [name, rest] = splitUri(uri)
  const base = roots[name]
  if (base?.includes('://') === true) throw new UnknownPath(`${uri}: root ${name} is a bucket (${base}), where only sources of a corpus may lie; expected a path under a folder`)
  if (base === undefined) throw new UnknownPath(`${uri}: unknown root ${name}; this worker knows ${Object.keys(roots).join(', ')}`)
  const path = under(base, rest)
  const real = await orNull(realpath(path))
  // a symbolic link inside a root must not lead out of it
  if (real !== null) under(await realpath(base), real)
  return path
}

/** Reference to a file or (trailing slash) folder under a configured root, its digest taken now. */
export const refUnderRoot = async (roots: Readonly<Record<string, string>>, uri: string): Promise<ArtifactRef> => {
  const path = await pathUnderRoot(roots, uri)
  const found = await orNull(stat(path))
  if (found === null) throw new UnknownPath(`${uri}: no such file or folder (looked at ${path})`)
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

/** Files of a folder by their paths in it, whether each is a regular file; null where there is no folder. */
export const filesInFolder = async (path: string): Promise<{ name: string; isFile: boolean }[] | null> => {
  const found = await orNull(readdir(path, { recursive: true, withFileTypes: true }))
  return found?.filter((e) => !e.isDirectory()).map((e) => ({ isFile: e.isFile(), name: relative(path, join(e.parentPath, e.name)).split(sep).join('/') })) ?? null
}

/** Joins and refuses to leave the root. */
export const under = (base: string, rest: string): string => {
  const root = resolve(base)
  const path = resolve(root, rest)
  if (path !== root && !path.startsWith(root + sep)) throw new UnknownPath(`${rest}: leaves its root`)
  return path
}

export const digestFile = async (path: string): Promise<string> => {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}

/** What a file operation gives, or null where nothing lies at its path. */
export const orNull = async <T>(promise: Promise<T>): Promise<T | null> => {
  try {
    return await promise
  } catch (e) {
    if (isErrno(e, 'ENOENT') || isErrno(e, 'ENOTDIR')) return null
    throw e
  }
}

export const isErrno = (e: unknown, code: string): boolean => e instanceof Error && (e as NodeJS.ErrnoException).code === code
