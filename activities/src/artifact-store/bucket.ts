import type { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import type * as Sdk from '@aws-sdk/client-s3'

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

/** The server answered that it will not do what was asked: no such bucket, or not with these credentials. */
export class StoreRefused extends Error {
  override readonly name = 'StoreRefused'
}

export const tries = 5
export const pauseMs = (attempt: number): number => 100 * 2 ** attempt * (0.5 + Math.random())

/** What is asked of a bucket, until the server settles it; keys are relative to the prefix. */
export const openBucket = (settings: S3Place) => {
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

  return { place, server, at, client, ask, objects, reading }
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
export const answerIn = (e: unknown): Answer => {
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
  NoSuchBucket: 'create the bucket, or correct CPT_STORE or CPT_ROOTS',
  AccessDenied: 'these credentials may not do that: see AWS_ACCESS_KEY_ID and the bucket’s policy',
  Forbidden: 'these credentials may not do that: see AWS_ACCESS_KEY_ID and the bucket’s policy',
  InvalidAccessKeyId: 'correct AWS_ACCESS_KEY_ID',
  SignatureDoesNotMatch: 'correct AWS_SECRET_ACCESS_KEY',
  NotImplemented: 'the server does not know conditional puts: cpt doctor says more',
}

export const refusal = (what: string, server: string, e: unknown): Error => {
  const { name, message, status } = partsOf(e)
  return new StoreRefused(`store: ${what} was refused: ${name} (${status ?? 'no status'}): ${message}; ${hints[name] ?? 'check CPT_STORE, AWS_ACCESS_KEY_ID and the server’s log'} (server: ${server})`, { cause: e })
}
