import { createHash, randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type * as Sdk from '@aws-sdk/client-s3'
import type { CommittedFile } from '@cpt/contracts/artifact'
import { StoreCorrupt } from '../stage-failure.ts'
import type { ArtifactStore } from './artifact-store.ts'
import { storeOver, type KeyStore } from './commits.ts'
import { digestFile, orNull } from './roots.ts'

export interface S3Place {
  bucket: string
  /** Part of every key, without slashes at its ends; empty: the whole bucket is the store. */
  prefix: string
  /** Server, spoken to with path-style addresses; null: AWS itself. */
  endpoint: string | null
  region: string
  /** null: found by the SDK's own chain (instance and container roles). */
  credentials: { accessKeyId: string; secretAccessKey: string; sessionToken?: string } | null
}

/** The storage could not be asked, or gave no answer that settles anything; trying again may help. */
export class StoreUnreachable extends Error {
  override readonly name = 'StoreUnreachable'
}

/** The store in a bucket of an S3-compatible server: put-if-absent is `If-None-Match: *`, told apart by a nonce. */
export const s3Store = (roots: Readonly<Record<string, string>>, place: S3Place, cacheDir: string): ArtifactStore => storeOver(keysInBucket(place, cacheDir), roots)

/** Metadata of every object that we put: says whose put it was when the answer got lost. */
const nonceField = 'cpt-put'
const tries = 5
const pauseMs = (attempt: number): number => 100 * 2 ** attempt * (0.5 + Math.random())

const keysInBucket = (settings: S3Place, cacheDir: string): KeyStore => {
  const { bucket, prefix } = settings
  const place = `s3://${[bucket, prefix].filter((part) => part !== '').join('/')}`
  const inBucket = (key: string): string => (prefix === '' ? key : `${prefix}/${key}`)
  const at = (key: string): { Bucket: string; Key: string } => ({ Bucket: bucket, Key: inBucket(key) })
  const server = settings.endpoint ?? `AWS, ${settings.region}`
  const client = openClient(settings)

  /** Does `work` until the server settles it; `missing` stands for what is not there. */
  const ask = async <T, M>(what: string, missing: M, work: (s3: Client) => Promise<T>): Promise<T | M> => {
    for (let attempt = 0; ; attempt++) {
      try {
        return await work(await client())
      } catch (e) {
        const answer = answerIn(e)
        if (answer.kind === 'missing') return missing
        if (answer.kind === 'refused') throw refusal(`${what} ${place}`, server, e)
        if (attempt + 1 === tries) throw new StoreUnreachable(`store: ${what} ${place} failed ${tries} times; the last: ${answer.why} (server: ${server})`)
        await delay(pauseMs(attempt))
      }
    }
  }

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

  async function* objects(under: string): AsyncGenerator<Sdk._Object & { key: string }> {
    const { sdk, s3 } = await client()
    let ContinuationToken: string | undefined
    do {
      const page = await ask(`listing ${under} in`, null, async () => await s3.send(new sdk.ListObjectsV2Command({ Bucket: bucket, Prefix: inBucket(under), ContinuationToken })))
      for (const object of page?.Contents ?? []) yield { ...object, key: (object.Key ?? '').slice(inBucket('').length) }
      ContinuationToken = page?.NextContinuationToken
    } while (ContinuationToken !== undefined)
  }

  /** Bytes at a key as they come; null where there are none. What reads them starts over with a new stream if it breaks. */
  const reading = <T>(key: string, use: (body: Readable) => Promise<T>): Promise<T | null> =>
    ask(`reading ${key} from`, null, async ({ sdk, s3 }) => await use((await s3.send(new sdk.GetObjectCommand(at(key)))).Body as Readable))

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

interface Client {
  sdk: typeof Sdk
  s3: Sdk.S3Client
}

/** The SDK takes a quarter of a second to load: that happens when a store is used, not when it is named. */
const openClient = ({ endpoint, region, credentials }: S3Place): (() => Promise<Client>) => {
  let opened: Promise<Client> | null = null
  const open = async (): Promise<Client> => {
    const sdk = await import('@aws-sdk/client-s3')
    const s3 = new sdk.S3Client({
      region,
      ...(endpoint === null ? {} : { endpoint, forcePathStyle: true }),
      ...(credentials === null ? {} : { credentials }),
      // digests are ours, and not every server knows the newer checksum headers
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: { connectionTimeout: 5_000, requestTimeout: 30_000, throwOnRequestTimeout: true, socketTimeout: 30_000, socketAcquisitionWarningTimeout: 600_000 },
    })
    return { sdk, s3 }
  }
  return () => (opened ??= open())
}

type Answer = { kind: 'exists' | 'missing' | 'refused' | 'conflict' | 'unsure'; why: string }

/** What an error of the SDK says about the request: done by someone, not done, or not known. */
const answerIn = (e: unknown): Answer => {
  const { name, message, status } = partsOf(e)
  const why = `${name}: ${message}`
  if (status === 412) return { kind: 'exists', why }
  // a server may say 404 of a bucket or a user as well, which must never pass for “nothing was committed”
  if (name === 'NoSuchKey' || name === 'NotFound') return { kind: 'missing', why }
  if (status === 409 && (name === 'ConditionalRequestConflict' || name === 'OperationAborted')) return { kind: 'conflict', why }
  if (status === 429 || name === 'RequestTimeout' || name === 'SlowDown') return { kind: 'unsure', why }
  // no status at all: the connection broke, the answer did not come or was not understood
  return status !== null && status >= 400 && status < 500 ? { kind: 'refused', why } : { kind: 'unsure', why }
}

const partsOf = (e: unknown): { name: string; message: string; status: number | null } => {
  if (!(e instanceof Error)) return { name: 'Error', message: String(e), status: null }
  const { $metadata } = e as Error & { $metadata?: { httpStatusCode?: number } }
  return { name: e.name, message: e.message, status: $metadata?.httpStatusCode ?? null }
}

const hints: Readonly<Record<string, string>> = {
  NoSuchBucket: 'create the bucket, or correct CPT_STORE',
  AccessDenied: 'these credentials may not do that: see AWS_ACCESS_KEY_ID and the bucket’s policy',
  Forbidden: 'these credentials may not do that: see AWS_ACCESS_KEY_ID and the bucket’s policy',
  InvalidAccessKeyId: 'correct AWS_ACCESS_KEY_ID',
  SignatureDoesNotMatch: 'correct AWS_SECRET_ACCESS_KEY',
  NotImplemented: 'the server does not know conditional puts: cpt doctor says more',
}

const refusal = (what: string, server: string, e: unknown): Error => {
  const { name, message, status } = partsOf(e)
  return new Error(`store: ${what} was refused: ${name} (${status ?? 'no status'}): ${message}; ${hints[name] ?? 'check CPT_STORE, AWS_ACCESS_KEY_ID and the server’s log'} (server: ${server})`, { cause: e })
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
