import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { localDiskStore } from '@cpt/activities/artifact-store/local-disk'
import { Claim } from '@cpt/activities/claims'
import { isAlive, Started } from '@cpt/activities/job-runner/process'
import { CheckpointRecord, type CommitRecord } from '@cpt/contracts/artifact'
import { Beat, EndRecord } from '@cpt/contracts/job'
import { until } from './until.ts'

const storeAt = (storeDir: string) => localDiskStore({ store: storeDir })
const readJson = async (storeDir: string, key: string): Promise<unknown> => JSON.parse(await readFile(join(storeDir, key), 'utf8')) as unknown

/** Every commit record, in no particular order. */
export const commitsOf = async (storeDir: string): Promise<CommitRecord[]> => {
  const store = storeAt(storeDir)
  const fingerprints = (await store.list('commits/')).map((key) => key.slice(-69, -5))
  return (await Promise.all(fingerprints.map((f) => store.record(f)))).flatMap((r) => (r === null ? [] : [r]))
}

export interface ClaimEntry extends Claim {
  fingerprint: string
  range: number
  attempt: number
}
/** Every claim ever made: one says that one job was allowed to start. */
export const claimsIn = async (storeDir: string): Promise<ClaimEntry[]> => {
  const keys = await storeAt(storeDir).list('claims/')
  return Promise.all(keys.map(async (key) => {
    const [, , fingerprint = '', range = '', attempt = ''] = key.split('/')
    return { ...Claim.parse(await readJson(storeDir, key)), fingerprint, range: Number(range), attempt: Number.parseInt(attempt, 10) }
  }))
}

/** Checkpoint records of a training phase, in the order of their names. */
export const checkpointsOf = async (storeDir: string, fingerprint: string): Promise<CheckpointRecord[]> => {
  const keys = await storeAt(storeDir).list(`checkpoints/${fingerprint.slice(0, 2)}/${fingerprint}/`)
  return Promise.all(keys.map(async (key) => CheckpointRecord.parse(await readJson(storeDir, key))))
}

export interface JobEntry {
  fingerprint: string
  attempt: number
  folder: string
  started: Started | null
  beat: Beat | null
  end: EndRecord | null
  isRunning: boolean
}
/** Every attempt of every job, with whether a process of it lives. */
export const jobsIn = async (storeDir: string): Promise<JobEntry[]> => {
  const keys = (await storeAt(storeDir).list('jobs/')).filter((k) => k.endsWith('/request.json'))
  return Promise.all(keys.map(async (key) => {
    const folder = join(storeDir, key.slice(0, -'/request.json'.length))
    const [, , fingerprint = '', , attempt = ''] = key.split('/')
    const [started, beat, end] = await Promise.all((['started', 'beat', 'end'] as const).map((name) => readFile(join(folder, `${name}.json`), 'utf8').then((t) => JSON.parse(t) as unknown, () => null)))
    const process = Started.safeParse(started).data ?? null
    return { fingerprint, attempt: Number(attempt), folder, started: process, beat: Beat.safeParse(beat).data ?? null, end: EndRecord.safeParse(end).data ?? null, isRunning: process !== null && (await isAlive(process)) }
  }))
}

/** Waits for the last processes to leave (a job's commit comes before its exit), then expects no trace of unfinished work. */
export const nothingLeft = async (storeDir: string, deadlineSeconds = 30): Promise<void> => {
  await until('every job to be over', async () => (await jobsIn(storeDir)).every((j) => !j.isRunning && j.end !== null), deadlineSeconds)
  const debris = await debrisIn(storeDir)
  if (debris.length > 0) throw new Error(`left behind in the store: ${debris.join(', ')}`)
}

/** Files that a crash would leave behind. */
const debrisIn = async (storeDir: string): Promise<string[]> =>
  (await readdir(storeDir, { recursive: true })).filter((name) => name.split('/').at(-1)?.startsWith('.tmp-') === true)

/** Removes every trace of the given stages from a store, as if they had never been asked for. */
export const forgetStages = async (storeDir: string, isForgotten: (stage: string) => boolean): Promise<void> => {
  const gone = new Set((await commitsOf(storeDir)).filter((r) => isForgotten(r.stage)).map((r) => r.fingerprint))
  for (const fingerprint of gone) {
    const at = (kind: string) => join(storeDir, kind, fingerprint.slice(0, 2))
    await rm(join(at('commits'), `${fingerprint}.json`))
    for (const kind of ['data', 'claims', 'jobs', 'checkpoints']) await rm(join(at(kind), fingerprint), { recursive: true, force: true })
  }
}
