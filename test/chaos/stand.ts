import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CommitRecord } from '@cpt/contracts/artifact'
import type { CptRunInput } from '@cpt/contracts/cpt-run'
import { resultOf, startRun } from '../harness/runs.ts'
import { makeSmallCorpus, smallRun } from '../harness/small-run.ts'
import { commitsOf } from '../harness/store.ts'
import { startSystem, type System } from '../harness/system.ts'
import type { Slurm } from '../../infra/slurm/start.mjs'

export type Runner = 'local' | 'slurm'

/** Enough for a dozen kills with a new checkpoint between them; the short form in `npm test` makes do with fewer. */
export const steps = Number(process.env['CPT_CHAOS_STEPS'] ?? 120)
export const checkpointEverySteps = 4
export const batchTokens = 1024
export const trainKey = 'only/round-1/train'

/** One short training with a checkpoint every few steps; all that stands before it is prepared once and reused. */
export const chaosRun = (runner: Runner = 'local', over: CptRunInput = {}): CptRunInput => {
  const small = smallRun()
  const on = { threads: 1, runner } as const
  return smallRun({
    name: 'chaos',
    synthesis: { numDocs: 0 },
    plan: [{ name: 'only', rounds: 1, tokens: steps * batchTokens, order: 'random', mixture: { languages: { zh: 0.4, en: 0.6 } } }],
    // small steps: however short the training, it gains what the gate asks for
    training: { ...small.training, peakLr: 1e-4, globalBatchTokens: batchTokens, warmupTokens: 2 * batchTokens, decayTokens: 4 * batchTokens },
    evaluation: { windowTokens: 128, maxTokensPerDoc: 128, benchmarks: [] },
    placement: { data: on, scoring: on, train: { ...on, batchTokens: 1024, checkpointEverySteps }, evaluate: on },
    ...over,
  })
}

/** A training that is over soon, for faults that need no long one. */
export const shortRun = (runner: Runner = 'local', shortSteps = 24): CptRunInput => {
  const { plan, ...run } = chaosRun(runner)
  return { ...run, plan: plan?.map((phase) => ({ ...phase, tokens: shortSteps * batchTokens })) }
}

/** A training that takes its time: a checkpoint after every small step. It is of no use for comparing weights. */
export const slowRun = (runner: Runner = 'local', over: CptRunInput = {}, smallSteps = 800): CptRunInput => {
  const run = chaosRun(runner)
  const smallBatch = 256
  return {
    ...run,
    plan: [{ name: 'only', rounds: 1, tokens: smallSteps * smallBatch, order: 'random', mixture: { languages: { zh: 0.4, en: 0.6 } } }],
    training: { ...run.training, globalBatchTokens: smallBatch },
    placement: { ...run.placement, train: { ...run.placement?.train, checkpointEverySteps: 1 } },
    ...over,
  }
}

/** What the undisturbed run made; every disturbed one has to end with the same. */
export interface Reference {
  /** Fingerprints that a disturbed run computes anew. */
  fingerprints: string[]
  train: string
  weights: string
  curve: string
}

/** A store in which all is done up to training, and what the undisturbed training made of it. */
export interface Prepared {
  storeDir: string
  roots: Record<string, string>
  reference: Reference
  remove: () => Promise<void>
}

/** Stages that every experiment computes anew. */
export const disturbed = ['train', 'compare-perplexity', 'export-model']

/** Makes it, or finds it in `kept` where an earlier session of the same code has left it. */
export const prepare = async (kept: string | null = null): Promise<Prepared> => {
  const dir = kept ?? (await mkdtemp(join(tmpdir(), 'cpt-chaos-')))
  const remove = async (): Promise<void> => {
    if (kept === null) await rm(dir, { recursive: true, force: true })
  }
  const record = join(dir, 'prepared.json')
  const found = await readFile(record, 'utf8').catch(() => null)
  if (found !== null) return { ...(JSON.parse(found) as Omit<Prepared, 'remove'>), remove }
  const corpus = await makeSmallCorpus()
  const roots = { small: join(dir, 'corpus') }
  await cp(corpus.dir, roots.small, { recursive: true }).finally(() => corpus.remove())
  const system = await startSystem({ roots })
  try {
    await resultOf(await startRun(system, 'undisturbed', chaosRun()), 900)
    const again = (await commitsOf(system.storeDir)).filter((r) => disturbed.includes(r.stage))
    const reference = await referenceOf(system, again)
    const storeDir = join(dir, 'store')
    await cp(system.storeDir, storeDir, { recursive: true, filter: (source) => !/\/store\/(?:jobs|claims|askers|checkpoints)(?:\/|$)/.test(source) })
    for (const { fingerprint } of again) await forgetFingerprint(storeDir, fingerprint)
    await writeFile(record, JSON.stringify({ storeDir, roots, reference }))
    return { storeDir, roots, reference, remove }
  } catch (e) {
    await remove()
    throw e
  } finally {
    await system.stop()
  }
}

const referenceOf = async (system: System, records: CommitRecord[]): Promise<Reference> => {
  const train = records.find((r) => r.stage === 'train')
  if (train === undefined) throw new Error('the undisturbed run committed no training')
  return { fingerprints: records.map((r) => r.fingerprint), train: train.fingerprint, ...(await trainedBy(system.storeDir, train)) }
}

/** Digest of the weights and the whole curve of a committed training. */
export const trainedBy = async (storeDir: string, record: CommitRecord): Promise<{ weights: string; curve: string }> => {
  const { weightsSha256 } = record.result as { weightsSha256: string }
  const curve = record.files.find((f) => f.name === 'curve.jsonl')
  if (curve === undefined) throw new Error(`the commit of ${record.stage} ${record.fingerprint} names no curve.jsonl`)
  return { weights: weightsSha256, curve: await readFile(join(storeDir, curve.path), 'utf8') }
}

const forgetFingerprint = async (storeDir: string, fingerprint: string): Promise<void> => {
  const at = (kind: string): string => join(storeDir, kind, fingerprint.slice(0, 2))
  await rm(join(at('commits'), `${fingerprint}.json`), { force: true })
  for (const kind of ['data', 'claims', 'jobs', 'checkpoints']) await rm(join(at(kind), fingerprint), { recursive: true, force: true })
}

const settingsOf = (home: string): Record<string, string> => ({ CPT_HOME: home, CPT_PYTHON: pythonOfCheckout })
const pythonOfCheckout = new URL('../../ml/.venv/bin/python', import.meta.url).pathname

/** Compressed: a scheduler is asked twice a second, and files of a node are seen here at once. */
const quickSlurm = { pools: { default: {} }, pollSeconds: 0.5, coalesceSeconds: 0.3, vanishedAfterSeconds: 10, visibleWithinSeconds: 1, graceSeconds: 30 }

export interface StandOptions {
  runner?: Runner
  leaseSeconds?: number
  /** Another checkout than this one, such as a copy with a planted bug. */
  home?: string
  settings?: Record<string, string>
  /** The cluster of runner slurm. */
  slurm?: Slurm
}

/** A system of its own on a copy of the prepared store, to be disturbed again and again. */
export interface Stand {
  readonly system: System
  readonly reference: Reference
  readonly runner: Runner
  readonly leaseSeconds: number
  readonly slurm: Slurm | null
  /** Lets the named failpoint kill whoever passes it the nth time. */
  arm: (failpoint: string, nth: number) => Promise<void>
  isArmed: (failpoint: string) => Promise<boolean>
  /** As if the training, and what stands on it, had never been asked for; `stages` are forgotten as well. */
  forget: (stages?: readonly string[]) => Promise<void>
  stop: () => Promise<void>
}

export const startStand = async (prepared: Prepared, { runner = 'local', leaseSeconds = 60, home, settings = {}, slurm }: StandOptions = {}): Promise<Stand> => {
  const system = await startSystem({
    roots: prepared.roots,
    prepare: async (stateDir) => {
      await mkdir(join(stateDir, 'failpoints'))
      await cp(prepared.storeDir, join(stateDir, 'store'), { recursive: true })
    },
    settings: (stateDir) => ({
      CPT_FAILPOINTS: join(stateDir, 'failpoints'), CPT_LEASE_SECONDS: String(leaseSeconds), CPT_LOG_LEVEL: 'info',
      ...(slurm === undefined ? {} : { CPT_SLURM: JSON.stringify({ ...quickSlurm, conf: slurm.conf }), PATH: slurm.env.PATH }),
      ...(home === undefined ? {} : settingsOf(home)), ...settings,
    }),
  })
  const at = (failpoint: string): string => join(system.stateDir, 'failpoints', failpoint)
  return {
    system, runner, leaseSeconds,
    slurm: slurm ?? null,
    reference: prepared.reference,
    arm: (failpoint, nth) => writeFile(at(failpoint), String(nth)),
    isArmed: (failpoint) => readFile(at(failpoint)).then(() => true, () => false),
    forget: async (stages = []) => {
      const named = stages.length === 0 ? [] : (await commitsOf(system.storeDir)).filter((r) => stages.includes(r.stage)).map((r) => r.fingerprint)
      for (const fingerprint of [...prepared.reference.fingerprints, ...named]) await forgetFingerprint(system.storeDir, fingerprint)
      for (const kind of ['jobs', 'claims', 'askers']) await rm(join(system.storeDir, kind), { recursive: true, force: true })
    },
    stop: () => system.stop(),
  }
}
