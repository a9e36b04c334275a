import { createHash } from 'node:crypto'
import { pipeline } from 'node:stream/promises'
import type { ArtifactRef } from '@cpt/contracts/artifact'
import { z } from 'zod'
import { canonical, sha256, treeDigest } from '../identity.ts'
import { UnknownPath } from '../stage-failure.ts'
import type { ArtifactStore } from './artifact-store.ts'
import { splitUri } from './roots.ts'
import { openBucket, StoreRefused, type S3Place } from './bucket.ts'

/** A root that is a bucket: sources of a corpus may lie there. Throws UnknownPath for what is not there or may not be read. */
export interface BucketRoot {
  /** Reference to an object, or to all objects under a prefix as a folder. */
  refTo(uri: string): Promise<ArtifactRef>
  /** Keys under the prefix, relative to it; null where there are none, as where `uri` names an object. */
  filesUnder(uri: string): Promise<{ name: string; isFile: boolean }[] | null>
  /** Lists one key; what is wrong, or null. */
  probe(): Promise<string | null>
}

const Remembered = z.object({ sha256: z.string() })
const readsAtOnce = 4
const tries = 3

/**
 * An object is read once for its digest, which is then remembered in the store by bucket, key, ETag and size
 * (`digests/<sha256 of these>.json`). A job checks the bytes that it gets all the same.
 */
export const bucketRoot = (settings: S3Place, remembered: Pick<ArtifactStore, 'get' | 'putIfAbsent'>): BucketRoot => {
  const { place, at, ask, objects, reading } = openBucket(settings)
  const head = async (key: string): Promise<{ etag: string; bytes: number } | null> =>
    await ask(`looking at ${key} in`, null, async ({ sdk, s3 }) => {
      const found = await s3.send(new sdk.HeadObjectCommand(at(key)))
      return { etag: found.ETag ?? '', bytes: found.ContentLength ?? 0 }
    })

  const digestOf = async (key: string, { etag, bytes }: { etag: string; bytes: number }): Promise<string | null> => {
    const noted = `digests/${sha256(canonical([settings.endpoint, place, key, etag, bytes]))}.json`
    const known = Remembered.safeParse(jsonIn(await remembered.get(noted))).data
    if (known !== undefined) return known.sha256
    const found = await reading(key, async (body) => {
      const hash = createHash('sha256')
      await pipeline(body, hash)
      return hash.digest('hex')
    })
    const after = await head(key)
    if (found === null || after === null || after.etag !== etag || after.bytes !== bytes) return null
    await remembered.putIfAbsent(noted, Buffer.from(canonical({ sha256: found, object: `${place}/${key}`, etag, bytes })))
    return found
  }

  const refToObject = async (uri: string, key: string): Promise<ArtifactRef | null> => {
    for (let tried = 0; tried < tries; tried++) {
      const is = await head(key)
      if (is === null) return null
      const digest = await digestOf(key, is)
      if (digest !== null) return { uri, sha256: digest, bytes: is.bytes }
    }
    throw new UnknownPath(`${uri}: ${place}/${key} changes while it is read`)
  }

  const under = async (prefix: string): Promise<string[]> => {
    const names: string[] = []
    for await (const { key } of objects(prefix)) if (!key.endsWith('/')) names.push(key.slice(prefix.length))
    return names.sort()
  }

  const folderRef = async (uri: string, prefix: string): Promise<ArtifactRef> => {
    const names = await under(prefix)
    if (names.length === 0) throw new UnknownPath(`${uri}: no such object or prefix (looked at ${place}/${prefix.replace(/\/$/, '')})`)
    const files: (ArtifactRef & { name: string })[] = []
    for (let i = 0; i < names.length; i += readsAtOnce) {
      files.push(...await Promise.all(names.slice(i, i + readsAtOnce).map(async (name) => {
        const ref = await refToObject(`${uri}/${name}`, `${prefix}${name}`)
        if (ref === null) throw new UnknownPath(`${uri}: ${place}/${prefix}${name} went while it was read`)
        return { ...ref, name }
      })))
    }
    return { uri: uri.endsWith('/') ? uri : `${uri}/`, sha256: treeDigest(files), bytes: files.reduce((sum, f) => sum + f.bytes, 0) }
  }

  return {
    refTo: (uri) => readable(uri, async () => {
      const key = keyIn(uri)
      return (key.endsWith('/') ? null : await refToObject(uri, key)) ?? (await folderRef(uri, folder(key)))
    }),
    filesUnder: (uri) => readable(uri, async () => {
      const names = await under(folder(keyIn(uri)))
      return names.length === 0 ? null : names.map((name) => ({ name, isFile: true }))
    }),
    async probe() {
      try {
        for await (const _ of objects('')) return null
        return null
      } catch (e) {
        return e instanceof Error ? e.message.replace(/^store: /, '') : String(e)
      }
    },
  }
}

const folder = (key: string): string => (key.endsWith('/') ? key : `${key}/`)

const keyIn = (uri: string): string => {
  const [, key] = splitUri(uri)
  if (key.split('/').some((part) => part === '..')) throw new UnknownPath(`${uri}: leaves its root`)
  return key
}

/** What the server will not give is an input that cannot be read, not a failure to be tried again. */
const readable = async <T>(uri: string, work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (e) {
    if (e instanceof StoreRefused) throw new UnknownPath(`${uri}: ${e.message.replace(/^store: /, '')}`)
    throw e
  }
}

const jsonIn = (bytes: Uint8Array | null): unknown => {
  try {
    return bytes === null ? undefined : JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    return undefined
  }
}
