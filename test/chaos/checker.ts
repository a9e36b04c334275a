import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Worker } from '@temporalio/worker'
import { isAlive } from '@cpt/activities/job-runner/process'
import type { CommitRecord } from '@cpt/contracts/artifact'
import { progressOf, type RunHandle } from '../harness/runs.ts'
import { checkpointsOf, claimsIn, commitsOf, jobsIn, type JobEntry } from '../harness/store.ts'
import type { EventLog } from './event-log.ts'
import { jobProcesses } from './process-table.ts'
import { batchTokens, checkpointEverySteps, steps, trainedBy, type Stand } from './stand.ts'

/** Names of shared/reliability's invariants; see docs/architecture.md, section Chaos. */
export type Invariant = 'I1' | 'I2' | 'I3' | 'I4' | 'I5' | 'I6' | 'I7' | 'I8' | 'I9'
export interface Violation {
  invariant: Invariant
  what: string
}

export interface Subject {
  stand: Stand
  run: RunHandle
  log: EventLog
  /** How the run has to end. */
  ends: 'COMPLETED' | 'CANCELLED' | 'TERMINATED'
  /** Pairs of attempts of one range that were seen alive at once. */
  overlaps: readonly string[]
}

/** Every invariant after an experiment; an empty list means that all of them hold. */
export const check = async (subject: Subject): Promise<Violation[]> => {
  const found = await Promise.all([sameModel(subject), oneJobAnAttempt(subject), nothingLeft(subject), littleLost(subject), rightEnd(subject), wholeStore(subject), replays(subject)])
  return found.flat()
}

const violation = (invariant: Invariant, what: string): Violation => ({ invariant, what })
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

const trainRecordOf = async ({ stand }: Subject): Promise<CommitRecord | undefined> =>
  (await commitsOf(stand.system.storeDir)).find((r) => r.fingerprint === stand.reference.train)

/** I1, I2 and I3: weights, curve and ledger of tokens are those of the undisturbed run. */
const sameModel = async (subject: Subject): Promise<Violation[]> => {
  if (subject.ends !== 'COMPLETED') return []
  const record = await trainRecordOf(subject)
  if (record === undefined) return [violation('I1', 'the run has ended, and no training is committed')]
  const { storeDir } = subject.stand.system
  const { weights, curve } = await trainedBy(storeDir, record)
  const lines = curve.trim().split('\n')
  const expected = subject.stand.reference.curve.trim().split('\n')
  const differs = expected.findIndex((line, i) => line !== lines[i])
  const strayed = lines.findIndex((text, i) => {
    const { step, tokens } = JSON.parse(text) as { step: number; tokens: number }
    return step !== i + 1 || tokens !== (i + 1) * batchTokens
  })
  return [
    ...(weights === subject.stand.reference.weights ? [] : [violation('I1', `weights ${weights.slice(0, 12)}, undisturbed ${subject.stand.reference.weights.slice(0, 12)}`)]),
    ...(differs < 0 && lines.length === expected.length ? [] : [violation('I2', `line ${differs + 1} of the curve is ${lines[differs] ?? 'missing'}, undisturbed ${expected[differs] ?? 'missing'}`)]),
    ...(strayed < 0 && lines.length === steps ? [] : [violation('I3', `the ledger leaves the plan at line ${strayed + 1} of ${lines.length}: ${lines[strayed] ?? `expected ${steps} lines`}`)]),
  ]
}

const placeOf = (job: JobEntry): string => job.folder.split('/').slice(-3).join('/')

/** I4: one accepted job per attempt: claims without a gap, no job without a claim, no attempt that worked twice or beside its successor. */
const oneJobAnAttempt = async ({ stand, overlaps }: Subject): Promise<Violation[]> => {
  const { storeDir } = stand.system
  const claims = await claimsIn(storeDir)
  const claimed = new Set(claims.map((c) => `${c.fingerprint}/${c.range}/${c.attempt}`))
  const gaps = claims.filter((c) => c.attempt > 1 && !claimed.has(`${c.fingerprint}/${c.range}/${c.attempt - 1}`))
  const jobs = await jobsIn(storeDir)
  const twice = await Promise.all(jobs.map(async (job) => {
    const events = (await readFile(join(job.folder, 'log.jsonl'), 'utf8').catch(() => '')).split('\n').flatMap((line) => {
      try {
        return [JSON.parse(line) as { event?: string; step?: number; fingerprint?: string }]
      } catch {
        return [] // a line cut off by the kill, or plain words of a process that was turned away
      }
    })
    const saved = events.filter((e) => e.event === 'checkpoint').map((e) => e.step ?? 0)
    const again = saved.findIndex((step, i) => i > 0 && step <= (saved[i - 1] ?? 0))
    const committed = events.filter((e) => e.event === 'committed').map((e) => e.fingerprint)
    const repeated = ['resumed', 'ended'].filter((name) => events.filter((e) => e.event === name).length > 1)
    return [
      ...(again < 0 ? [] : [violation('I4', `${placeOf(job)} saved step ${saved[again] ?? 0} after step ${saved[again - 1] ?? 0}: two processes worked on it`)]),
      ...(new Set(committed).size === committed.length ? [] : [violation('I4', `${placeOf(job)} committed one fingerprint twice`)]),
      ...repeated.map((name) => violation('I4', `${placeOf(job)} ${name} twice`)),
    ]
  }))
  return [
    ...gaps.map((c) => violation('I4', `attempt ${c.attempt} of ${c.fingerprint.slice(0, 12)} was claimed, and no attempt ${c.attempt - 1}`)),
    ...jobs.filter((j) => !claimed.has(placeOf(j))).map((j) => violation('I4', `${placeOf(j)} was started without a claim`)),
    ...overlaps.map((what) => violation('I4', what)),
    ...twice.flat(),
  ]
}

/** I5: no process of a job, no job without an end, no temporary file. */
export const nothingLeft = async ({ stand }: Pick<Subject, 'stand'>): Promise<Violation[]> => {
  const { storeDir } = stand.system
  const processes = await jobProcesses(storeDir)
  const jobs = await jobsIn(storeDir)
  const debris = (await readdir(storeDir, { recursive: true })).filter((name) => name.split('/').at(-1)?.startsWith('.tmp-') === true)
  return [
    ...processes.map(({ pid, folder }) => violation('I5', `process ${pid} of ${folder.split('/').slice(-3).join('/')} is still there`)),
    ...jobs.filter((j) => j.started !== null && j.end === null && j.isRunning).map((j) => violation('I5', `${placeOf(j)} still runs`)),
    ...debris.map((name) => violation('I5', `temporary file ${name}`)),
  ]
}

/** I6: after every restart training went on at the last checkpoint, at most one interval behind where it had been. */
const littleLost = async (subject: Subject): Promise<Violation[]> => {
  if (subject.ends !== 'COMPLETED') return []
  const record = await trainRecordOf(subject)
  const restarts = (record?.result as { restarts?: { attempt: number; step: number }[] } | undefined)?.restarts ?? []
  const jobs = (await jobsIn(subject.stand.system.storeDir)).filter((j) => j.fingerprint === subject.stand.reference.train)
  const reached = (attempt: number): number => Math.max(0, ...jobs.filter((j) => j.attempt < attempt).map((j) => j.beat?.step ?? 0))
  return restarts.flatMap(({ attempt, step }) =>
    reached(attempt) - step <= checkpointEverySteps ? [] : [violation('I6', `attempt ${attempt} began at step ${step}, training had reached ${reached(attempt)}, a checkpoint is due every ${checkpointEverySteps}`)])
}

/** I7: the workflow ends as it should, nobody had to press anything, and a run that failed says why. */
const rightEnd = async ({ run, ends }: Subject): Promise<Violation[]> => {
  const { status } = await run.describe()
  if (status.name !== ends) return [violation('I7', `the workflow is ${status.name}, expected ${ends}`)]
  if (ends !== 'COMPLETED') return []
  const progress = await progressOf(run)
  return [
    ...(progress.status === 'done' ? [] : [violation('I7', `the page says ${progress.status}`)]),
    ...progress.decisions.map((d) => violation('I7', `a person had to decide on ${d.stage}`)),
  ]
}

/** I8: every file that a commit or a checkpoint record names is there and has its digest. */
const wholeStore = async ({ stand }: Subject): Promise<Violation[]> => {
  const { storeDir } = stand.system
  const ours = new Set([...stand.reference.fingerprints, ...(await jobsIn(storeDir)).map((j) => j.fingerprint)])
  const commits = (await commitsOf(storeDir)).filter((r) => ours.has(r.fingerprint))
  const checkpoints = (await Promise.all([...ours].map((f) => checkpointsOf(storeDir, f).catch(() => [])))).flat()
  const named = [
    ...commits.flatMap((r) => r.files.map((f) => ({ ...f, of: `commit of ${r.stage}` }))),
    ...checkpoints.flatMap((c) => c.files.map((f) => ({ ...f, of: `checkpoint at step ${c.step}` }))),
  ]
  const damaged = await Promise.all(named.map(async (f) => {
    const bytes = await readFile(join(storeDir, f.path)).catch(() => null)
    return bytes !== null && sha256(bytes) === f.sha256 ? [] : [violation('I8', `${f.of}: ${f.path} ${bytes === null ? 'is missing' : 'is not what the record says'}`)]
  }))
  return damaged.flat()
}

/** I9: the history replays on the workflow code of today. */
const replays = async ({ run, stand }: Subject): Promise<Violation[]> => {
  const history = await run.fetchHistory()
  const code = await readFile(join(stand.system.config.home, 'workers', 'dist', 'workflows.js'), 'utf8')
  try {
    await Worker.runReplayHistory({ workflowBundle: { code } }, history, run.workflowId)
    return []
  } catch (e) {
    return [violation('I9', e instanceof Error ? e.message.slice(0, 300) : String(e))]
  }
}

/** Attempts of one range that work at once: each has claimed its start, so none is about to be turned away, and the older has not said its last word. */
export const overlapsIn = async (storeDir: string): Promise<string[]> => {
  const alive = (await Promise.all((await jobsIn(storeDir)).map(async (j) => (j.started !== null && (await isAlive(j.started)) ? [j] : [])))).flat()
  return alive.filter((a) => a.end === null).flatMap((a) => alive.filter((b) => b.fingerprint === a.fingerprint && b.folder.split('/').at(-2) === a.folder.split('/').at(-2) && b.attempt > a.attempt).map((b) => `attempts ${a.attempt} and ${b.attempt} of ${a.fingerprint.slice(0, 12)} lived at once`))
}
