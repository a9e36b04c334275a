import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { controlQueue, defaultNamespace, jobsQueue } from '@cpt/contracts/ids'
import { z } from 'zod'
import type { S3Place } from './artifact-store/bucket.ts'
import { readSlurmSettings, type SlurmSettings } from './job-runner/slurm-settings.ts'
import { parseLostAnswers, type LostAnswers } from './lost-answers.ts'

/** Everything a process of ours takes from its environment. Names in workflow input are looked up here. */
export interface Config {
  /** The checkout: where ml/ and samples/ are. */
  home: string
  /** Databases, logs, reports and, by default, the store. */
  stateDir: string
  /** Named roots that inputs and references may point under; `store` is where results are committed: a folder or s3://bucket/prefix. */
  roots: Record<string, string>
  /** Those of the roots that are buckets (`CPT_ROOTS`: s3://bucket/prefix), where sources of a corpus may lie. */
  buckets: Record<string, S3Place>
  /** The bucket, where the store is one. */
  s3: S3Place | null
  /** Folder of jobs and askers, on a disk that workers and jobs share: the store itself where that is a folder. */
  workDir: string
  /** Copies of what lies in a remote store. */
  cacheDir: string
  reportsDir: string
  /** Address under which report pages are served, when they are. */
  reportsUrl: string | null
  python: string
  /** The whole environment of a job; secrets of the worker stay with the worker. */
  jobEnv: Record<string, string>
  temporal: { address: string; namespace: string; uiUrl: string | null; apiKey: string | null; tls: { certFile: string; keyFile: string } | null }
  queues: { control: string; jobs: string }
  /** The model that label-topics asks where the input names none (CPT_LABEL_MODEL). */
  labelModel: string | null
  /** How many jobs this worker watches at once. */
  slots: number
  /** How long a job lives without its watcher. */
  leaseSeconds: number
  /** The cluster that jobs may run on (CPT_SLURM), and what its programs need of an environment; null: this worker knows none. */
  slurm: { settings: SlurmSettings; env: Record<string, string>; leaseSeconds: number } | null
  /** How long the process that forks jobs waits for the next one; 0: every job starts a Python of its own. */
  warmIdleSeconds: number
  /** How often jobs without a living run are looked for; 0: this worker makes no schedule for it. */
  reaperSeconds: number
  logLevel: string
  /** For tests: the folder in which failpoints are armed, and which answers of outside calls are lost. */
  failpoints: string | null
  lostAnswers: LostAnswers | null
}

const Roots = z.record(z.string().regex(/^[a-z][a-z0-9-]{0,30}$/), z.string())

/** Finds the checkout from the running file, whether bundled or not. */
export const findHome = (from: string = fileURLToPath(import.meta.url)): string => {
  for (let dir = dirname(from); dir !== dirname(dir); dir = dirname(dir)) if (existsSync(join(dir, 'pnpm-workspace.yaml'))) return dir
  throw new Error(`cpt: no pnpm-workspace.yaml above ${from}; run cpt from its checkout or set CPT_HOME`)
}

/** Reads the configuration; throws with the variable's name when a value is unusable. */
export const loadConfig = (env: Record<string, string | undefined> = process.env): Config => {
  const home = resolve(env['CPT_HOME'] ?? findHome())
  const stateDir = resolve(env['CPT_STATE'] ?? join(home, '.cpt'))
  const extra = env['CPT_ROOTS'] === undefined ? {} : parseRoots(env['CPT_ROOTS'])
  const store = storeIn(env, extra['store'] ?? join(stateDir, 'store'))
  const cacheDir = resolve(env['CPT_CACHE'] ?? join(stateDir, 'cache'))
  const buckets = Object.fromEntries(Object.entries(extra).flatMap(([name, root]) => (root.includes('://') ? [[name, bucketIn(env, root, 'CPT_ROOTS')]] : [])))
  const anyBucket = store.s3 ?? Object.values(buckets)[0]
  const cert = env['TEMPORAL_TLS_CLIENT_CERT_PATH'] ?? env['TEMPORAL_TLS_CERT']
  const key = env['TEMPORAL_TLS_CLIENT_KEY_PATH'] ?? env['TEMPORAL_TLS_KEY']
  return {
    home,
    stateDir,
    roots: { samples: join(home, 'samples'), ...extra, store: store.root },
    buckets,
    s3: store.s3,
    workDir: store.s3 === null ? store.root : join(stateDir, 'work'),
    cacheDir,
    reportsDir: join(stateDir, 'reports'),
    reportsUrl: env['CPT_REPORTS_URL'] ?? null,
    python: env['CPT_PYTHON'] ?? join(home, 'ml', '.venv', 'bin', 'python'),
    jobEnv: { ...jobEnvironment(env), ...labelEnvironment(env), ...(anyBucket === undefined ? {} : s3Environment(anyBucket, cacheDir)) },
    temporal: {
      address: env['TEMPORAL_ADDRESS'] ?? '127.0.0.1:7233',
      namespace: env['TEMPORAL_NAMESPACE'] ?? defaultNamespace,
      uiUrl: env['CPT_UI_URL'] ?? null,
      apiKey: env['TEMPORAL_API_KEY'] ?? null,
      tls: cert !== undefined && key !== undefined ? { certFile: cert, keyFile: key } : null,
    },
    queues: { control: env['CPT_QUEUE'] ?? controlQueue, jobs: env['CPT_JOBS_QUEUE'] ?? jobsQueue },
    labelModel: env['CPT_LABEL_MODEL'] ?? null,
    slots: positive(env, 'CPT_SLOTS', Math.max(2, availableParallelism())),
    leaseSeconds: positive(env, 'CPT_LEASE_SECONDS', 120),
    slurm: slurmIn(env),
    reaperSeconds: env['CPT_REAPER_SECONDS'] === '0' ? 0 : positive(env, 'CPT_REAPER_SECONDS', 300),
    warmIdleSeconds: env['CPT_WARM_IDLE_SECONDS'] === '0' ? 0 : positive(env, 'CPT_WARM_IDLE_SECONDS', 600),
    logLevel: env['CPT_LOG_LEVEL'] ?? 'info',
    failpoints: env['CPT_FAILPOINTS'] ?? null,
    lostAnswers: env['CPT_LOST_ANSWERS'] === undefined ? null : parseLostAnswers(env['CPT_LOST_ANSWERS']),
  }
}

const parseRoots = (text: string): Record<string, string> => {
  const parsed = Roots.safeParse(jsonIn(text))
  if (!parsed.success) throw new Error(`CPT_ROOTS: expected a JSON object of name to folder, got ${text.slice(0, 80)}`)
  for (const [name, hint] of [['store', 'a store in a bucket is named by CPT_STORE'], ['samples', 'presets are read from it']] as const) {
    if (parsed.data[name]?.includes('://') === true) throw new Error(`CPT_ROOTS: ${name} is ${parsed.data[name].slice(0, 80)}; expected a folder (${hint})`)
  }
  return Object.fromEntries(Object.entries(parsed.data).map(([name, dir]) => [name, dir.includes('://') ? dir.replace(/\/+$/, '') : resolve(dir)]))
}

/** The folder or bucket that CPT_STORE names, and how to reach a bucket. */
const storeIn = (env: Record<string, string | undefined>, otherwise: string): { root: string; s3: S3Place | null } => {
  const text = env['CPT_STORE']
  if (text === undefined) return { root: otherwise, s3: null }
  if (env['CPT_ROOTS'] !== undefined && 'store' in parseRoots(env['CPT_ROOTS'])) throw new Error('CPT_STORE: CPT_ROOTS names a store as well; expected it in one of them')
  if (!text.includes('://')) return { root: resolve(text), s3: null }
  const s3 = bucketIn(env, text, 'CPT_STORE')
  return { root: s3.prefix === '' ? `s3://${s3.bucket}` : `s3://${s3.bucket}/${s3.prefix}`, s3 }
}

/** The bucket of `s3://bucket/prefix`, and how to reach it; `from` is the variable that names it. */
const bucketIn = (env: Record<string, string | undefined>, text: string, from: string): S3Place => {
  const [, bucket, path = ''] = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/([A-Za-z0-9!_.*'()\/-]*))?$/.exec(text) ?? []
  const prefix = path.replace(/\/+$/, '')
  if (bucket === undefined || (prefix !== '' && prefix.split('/').some((part) => ['', '.', '..'].includes(part)))) throw new Error(`${from}: expected a folder or s3://bucket/prefix, got ${text.slice(0, 200)}`)
  const [accessKeyId, secretAccessKey, sessionToken] = [env['AWS_ACCESS_KEY_ID'], env['AWS_SECRET_ACCESS_KEY'], env['AWS_SESSION_TOKEN']]
  if ((accessKeyId === undefined) !== (secretAccessKey === undefined)) throw new Error(`${accessKeyId === undefined ? 'AWS_ACCESS_KEY_ID' : 'AWS_SECRET_ACCESS_KEY'}: expected beside the other of the pair, which is set`)
  return {
    bucket, prefix, endpoint: endpointIn(env), region: env['AWS_REGION'] ?? 'us-east-1',
    credentials: accessKeyId === undefined || secretAccessKey === undefined ? null : { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) },
  }
}

const endpointIn = (env: Record<string, string | undefined>): string | null => {
  const text = env['CPT_S3_ENDPOINT']
  if (text === undefined) return null
  if (!URL.canParse(text) || !['http:', 'https:'].includes(new URL(text).protocol)) throw new Error(`CPT_S3_ENDPOINT: expected an http:// or https:// address, got ${text.slice(0, 200)}`)
  return text
}

/** What a job needs to reach the bucket; ml/cpt_ml/store.py reads the same names. */
const s3Environment = ({ endpoint, region, credentials }: S3Place, cacheDir: string): Record<string, string> => ({
  AWS_REGION: region,
  CPT_CACHE: cacheDir,
  ...(endpoint === null ? {} : { CPT_S3_ENDPOINT: endpoint }),
  ...(credentials === null ? {} : { AWS_ACCESS_KEY_ID: credentials.accessKeyId, AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey }),
  ...(credentials?.sessionToken === undefined ? {} : { AWS_SESSION_TOKEN: credentials.sessionToken }),
})

const slurmIn = (env: Record<string, string | undefined>): Config['slurm'] => {
  if (env['CPT_SLURM'] === undefined) return null
  const settings = readSlurmSettings(env['CPT_SLURM'])
  const conf = settings.conf ?? env['SLURM_CONF']
  const path = env['PATH'] ?? '/usr/bin:/bin'
  // a cluster's maintenance lasts longer than a worker's restart
  const leaseSeconds = settings.leaseSeconds ?? positive(env, 'CPT_LEASE_SECONDS', 6 * 3600)
  return { settings, leaseSeconds, env: { PATH: path, ...(env['HOME'] === undefined ? {} : { HOME: env['HOME'] }), ...(conf === undefined ? {} : { SLURM_CONF: conf }) } }
}

/** What a job needs to ask the endpoint of label-topics; ml/cpt_ml/chat_endpoint.py reads the same names. */
const labelEnvironment = (env: Record<string, string | undefined>): Record<string, string> => {
  const url = env['CPT_LABEL_URL']
  if (url === undefined) return {}
  if (!URL.canParse(url) || !['http:', 'https:'].includes(new URL(url).protocol)) throw new Error(`CPT_LABEL_URL: expected an http:// or https:// address that ends in /v1, got ${url.slice(0, 200)}`)
  const [key, concurrency] = [env['CPT_LABEL_KEY'], env['CPT_LABEL_CONCURRENCY']]
  return { CPT_LABEL_URL: url, ...(key === undefined ? {} : { CPT_LABEL_KEY: key }), ...(concurrency === undefined ? {} : { CPT_LABEL_CONCURRENCY: concurrency }) }
}

const jsonIn = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const positive = (env: Record<string, string | undefined>, name: string, otherwise: number): number => {
  const text = env[name]
  if (text === undefined) return otherwise
  const value = Number(text)
  if (!(value > 0)) throw new Error(`${name}: expected a positive number, got ${text}`)
  return value
}

/**
 * glibc keeps what a job frees instead of handing it back to the kernel after every large tensor, and backs it with huge pages: a
 * training of the sample sweep has 1,566 page faults instead of 409,996 (docs/benchmarks.md). Other C libraries read past it.
 */
const allocator = 'glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=67108864'

const jobEnvironment = (env: Record<string, string | undefined>): Record<string, string> => {
  const kept = ['PATH', 'HOME', 'LANG', 'LC_ALL', 'TMPDIR', 'TZ', 'LD_LIBRARY_PATH', 'CPT_FAILPOINTS'].flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]]))
  return {
    GLIBC_TUNABLES: env.GLIBC_TUNABLES ?? allocator,
    // Arrow's own pool keeps pages for sizes that do not come again: memory grew by a tenth over ten shards
    ARROW_DEFAULT_MEMORY_POOL: env.ARROW_DEFAULT_MEMORY_POOL ?? 'system',
    ...(Object.fromEntries(kept) as Record<string, string>),
    PYTHONUNBUFFERED: '1',
    PYTHONHASHSEED: '0',
    HF_HUB_OFFLINE: '1',
    HF_DATASETS_OFFLINE: '1',
    TRANSFORMERS_OFFLINE: '1',
    TOKENIZERS_PARALLELISM: 'false',
  }
}
