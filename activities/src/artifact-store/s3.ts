import { createHash, randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { CommittedFile } from '@cpt/contracts/artifact'
import { StoreCorrupt } from '../stage-failure.ts'
import type { ArtifactStore } from './artifact-store.ts'
import { answerIn, openBucket, pauseMs, refusal, StoreUnreachable, tries, type S3Place } from './bucket.ts'
import { storeOver, type KeyStore } from './commits.ts'
import { digestFile, orNull } from './roots.ts'

/** The store in a bucket of an S3-compatible server: put-if-absent is `If-None-Match: *`, told apart by a nonce. */
export const s3Store = (roots: Readonly<Record<string, string>>, place: S3Place, cacheDir: string, buckets: Readonly<Record<string, S3Place>> = {}): ArtifactStore => storeOver(keysInBucket(place, cacheDir), roots, buckets)

/** Metadata of every object that we put: says whose put it was when the answer got lost. */
const nonceField = 'cpt-put'
const keysInBucket = (settings: S3Place, cacheDir: string): KeyStore => {
  const { place, server, at, client, ask, objects, reading } = openBucket(settings)

  /** Whose put made the object at `key`: the nonce, '' for one that bears none, null where there is no object. */
  const makerOf = async (key: string): Promise<string | null> =>
    await ask(`looking at ${key} in`, null, async ({ sdk, s3 }) => (await s3.send(new sdk.HeadObjectCommand(at(key)))).Metadata?.[nonceField] ?? '')

  const putIfAbsent = async (key: string, data: Uint8Array): Promise<boolean> => {
    const nonce = randomUUID()
    let why = ''
    for (let attempt = 0; attempt < tries; attempt++) {
      if (attempt > 0) await delay(pauseMs(attempt))
      const { sdk, s3 } = await client()
      try {
        await s3.send(new sdk.PutObjectCommand({ ...at(key), Body: data, ContentLength: data.byteLength, IfNoneMatch: '*', Metadata: { [nonceField]: nonce } }))
        return true
      } catch (e) {
        const answer = answerIn(e)
        if (answer.kind === 'refused' || answer.kind === 'missing') throw refusal(`writing ${key} to ${place}`, server, e)
        why = answer.why
        // “exists” may mean our own put, repeated by the SDK or a proxy after its answer was lost; “unsure” may mean that it is done
        if (answer.kind === 'conflict') continue
        const maker = await makerOf(key)
        if (maker !== null) return maker === nonce
      }
    }
    throw new StoreUnreachable(`store: writing ${key} to ${place} failed ${tries} times, and nothing lies there; the last: ${why} (server: ${server})`)
  }

  // the same folder and layout as ml/cpt_ml/s3_store.py: what a job of this machine wrote need not be downloaded
  const cached = cacheOf(join(cacheDir, createHash('sha256').update(`${settings.endpoint ?? 'None'} ${place}`).digest('hex').slice(0, 16)), async ({ path }, into) => {
    const got = await reading(path, async (body) => { await pipeline(body, createWriteStream(into)); return true })
    if (got === null) throw new StoreCorrupt(`store: ${place}/${path} is missing`)
  })

  return {
    place,
    putIfAbsent,
    get: (key) => reading(key, async (body) => Buffer.concat(await body.toArray() as Buffer[])),
    async list(under) {
      const keys: string[] = []
      for await (const { key } of objects(under)) keys.push(key)
      return keys.sort()
    },
    async entries(under) {
      const found = []
      for await (const { key, Size, LastModified } of objects(under)) found.push({ key, bytes: Size ?? 0, changedAtMs: LastModified?.getTime() ?? 0 })
      return found.sort((a, b) => (a.key < b.key ? -1 : 1))
    },
    size: (key) => ask(`looking at ${key} in`, null, async ({ sdk, s3 }) => (await s3.send(new sdk.HeadObjectCommand(at(key)))).ContentLength ?? 0),
    remove: (key) => ask(`removing ${key} from`, undefined, async ({ sdk, s3 }) => { await s3.send(new sdk.DeleteObjectCommand(at(key))) }),
    localFile: (file) => cached(file),
  }
}

/**
 * Copies of committed files in a folder: downloaded under a name of their own, verified, then renamed. What lies there
 * already is verified by digest once per process, and by size each time.
 */
const cacheOf = (folder: string, download: (file: CommittedFile, into: string) => Promise<void>): ((file: CommittedFile) => Promise<string>) => {
  const verified = new Set<string>()
  const damageOf = async (path: string, { sha256, bytes }: CommittedFile): Promise<string | null> => {
    const size = (await orNull(stat(path)))?.size ?? null
    if (size !== bytes) return `has ${size ?? 'no'} bytes, expected ${bytes}`
    if (verified.has(path)) return null
    const found = await digestFile(path)
    return found === sha256 ? null : `has sha256 ${found}, expected ${sha256}`
  }
  return async (file) => {
    const path = join(folder, file.path)
    if ((await damageOf(path, file)) !== null) {
      await mkdir(dirname(path), { recursive: true })
      const tmp = join(dirname(path), `.tmp-${process.pid}-${randomUUID()}`)
      try {
        await download(file, tmp)
        const damage = await damageOf(tmp, file)
        if (damage !== null) throw new StoreCorrupt(`store: ${file.path}, as downloaded, ${damage}`)
        await rename(tmp, path)
      } finally {
        await rm(tmp, { force: true })
      }
    }
    verified.add(path)
    return path
  }
}
