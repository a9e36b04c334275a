import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from '@temporalio/worker'
import { listJobs, slurmCommand, type Row } from '@cpt/activities/job-runner/slurm-commands'
import { phaseOf } from '@cpt/activities/job-runner/slurm-states'
import { jobName } from '@cpt/activities/job-runner/slurm-submissions'
import type { CommitRecord } from '@cpt/contracts/artifact'
import { z } from 'zod'
import { progressOf, type RunHandle } from '../harness/runs.ts'
import { claimsIn, commitsOf, jobsIn, type JobEntry } from '../harness/store.ts'
import type { ChaosEvent, EventLog } from './event-log.ts'
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
  /** Whether the run is the one whose weights and curve are known. */
  comparable: boolean
  /** What was seen to be wrong while the run went on. */
  seen: readonly Violation[]
}

/** Every invariant after an experiment; an empty list means that all of them hold. */
export const check = async (subject: Subject): Promise<Violation[]> => {
  const found = await Promise.all([sameModel(subject), oneJobAnAttempt(subject), oneSubmissionAnAttempt(subject), nothingStays(subject), littleLost(subject), rightEnd(subject), wholeStore(subject), replays(subject)])
  const atFaults = subject.log.events.filter((e) => e.what === 'seen').map((e) => violation(e['invariant'] as Invariant, String(e['what of'])))
  return [...subject.seen, ...atFaults, ...found.flat()]
}

export const violation = (invariant: Invariant, what: string): Violation => ({ invariant, what })
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

const trainRecordOf = async ({ stand }: Subject): Promise<CommitRecord | undefined> =>
  (await commitsOf(stand.system.storeDir)).find((r) => r.fingerprint === stand.reference.train)

/** I1, I2 and I3: weights, curve and ledger of tokens are those of the undisturbed run. */
const sameModel = async (subject: Subject): Promise<Violation[]> => {
  if (subject.ends !== 'COMPLETED' || !subject.comparable) return []
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

/** Faults after which a further attempt is due. */
const endsAttempt = (e: ChaosEvent): boolean => e['target'] === 'job' || e['failpoint'] !== undefined || e.what === 'given-up'
/** How often, after a fault, a job may be submitted that has not claimed its start yet: nobody knows that it is on its way. */
const unsureSubmissions = (e: ChaosEvent): number => {
  if (e.what === 'answers-lost') return Number(e['lost'])
  // two that ask for an attempt in one moment may both submit it: one of them is turned away
  if (e.what === 'submitted-again' || e.what === 'second-asker') return 1
  if (e.what !== 'kill') return 0
  return (e['target'] === 'worker' && e['unstarted'] !== 0) || e['target'] === 'server' || e['failpoint'] !== undefined ? 1 : 0
}

const controllerKills = (log: EventLog): number => log.events.filter((e) => e.what === 'kill' && e['target'] === 'slurmctld').length

/** I4: one accepted job per attempt: claims without a gap, no attempt without a cause, no job without a claim, no attempt that worked twice. */
const oneJobAnAttempt = async ({ stand, log }: Subject): Promise<Violation[]> => {
  const { storeDir } = stand.system
  const claims = await claimsIn(storeDir)
  const claimed = new Set(claims.map((c) => `${c.fingerprint}/${c.range}/${c.attempt}`))
  const gaps = claims.filter((c) => c.attempt > 1 && !claimed.has(`${c.fingerprint}/${c.range}/${c.attempt - 1}`))
  const jobs = await jobsIn(storeDir)
  const twice = await Promise.all(jobs.map(async (job) => {
    const text = await readFile(join(job.folder, 'log.jsonl'), 'utf8').catch(() => '')
    const events = text.split('\n').flatMap((line) => {
      try {
        return [JSON.parse(line) as { event?: string; step?: number; fingerprint?: string }]
      } catch {
        return [] // a line cut off by the kill, or plain words of a process that was turned away
      }
    })
    const refused = text.split('was started already').length - 1
    const saved = events.filter((e) => e.event === 'checkpoint').map((e) => e.step ?? 0)
    const again = saved.findIndex((step, i) => i > 0 && step <= (saved[i - 1] ?? 0))
    const committed = events.filter((e) => e.event === 'committed').map((e) => e.fingerprint)
    const repeated = ['resumed', 'ended'].filter((name) => events.filter((e) => e.event === name).length > 1)
    return [
      ...(again < 0 ? [] : [violation('I4', `${placeOf(job)} saved step ${saved[again] ?? 0} after step ${saved[again - 1] ?? 0}: two processes worked on it`)]),
      ...(new Set(committed).size === committed.length ? [] : [violation('I4', `${placeOf(job)} committed one fingerprint twice`)]),
      ...(refused <= log.events.reduce((sum, e) => sum + unsureSubmissions(e), 0) ? [] : [violation('I4', `${placeOf(job)} was submitted again while it ran`)]),
      ...repeated.map((name) => violation('I4', `${placeOf(job)} ${name} twice`)),
    ]
  }))
  // a controller killed before it saved a job forgets it, and has the nodes end what they run for it
  const forgotten = Math.min(controllerKills(log), jobs.filter((j) => j.end?.endClass === 'vanished').length)
  return [
    ...gaps.map((c) => violation('I4', `attempt ${c.attempt} of ${c.fingerprint.slice(0, 12)} was claimed, and no attempt ${c.attempt - 1}`)),
    ...jobs.filter((j) => !claimed.has(placeOf(j))).map((j) => violation('I4', `${placeOf(j)} was started without a claim`)),
    ...(claims.filter((c) => c.attempt > 1).length <= log.events.filter(endsAttempt).length + forgotten ? [] : [violation('I4', `${claims.filter((c) => c.attempt > 1).map((c) => `${c.key} attempt ${c.attempt}`).join(', ')}: more attempts than faults that end one`)]),
    ...twice.flat(),
  ]
}

/** The scheduler's own list of this system's jobs; nothing where there is no scheduler. */
const listed = async ({ system, slurm }: Stand): Promise<(Row & { attempts: JobEntry[] })[]> => {
  if (slurm === null) return []
  const rows = await listJobs(slurmCommand({ env: slurm.env }))
  if (!Array.isArray(rows)) throw new Error(`the cluster cannot be asked: ${rows.failed}`)
  const jobs = await jobsIn(system.storeDir)
  const named = jobs.map((job) => ({ job, name: jobName({ path: job.folder, fingerprint: job.fingerprint, range: Number(job.folder.split('/').at(-2)), attempt: job.attempt }) }))
  return rows.flatMap((row) => {
    const attempts = named.filter((n) => n.name === row.name).map((n) => n.job)
    return attempts.length === 0 ? [] : [{ ...row, attempts }]
  })
}

/** I4 by the scheduler: one job for each attempt. */
const oneSubmissionAnAttempt = async ({ stand, log }: Subject): Promise<Violation[]> => {
  const perAttempt = new Map<string, number>()
  for (const row of await listed(stand)) {
    const key = `${row.name} ${row.comment.split('/').slice(0, 4).join('/')}`
    perAttempt.set(key, (perAttempt.get(key) ?? 0) + 1)
  }
  // a controller killed within seconds of its answer forgets the job: the attempt is then submitted again
  const forgotten = controllerKills(log)
  return [...perAttempt].filter(([, n]) => n > 1 + forgotten).map(([key, n]) => violation('I4', `${n} jobs of the scheduler for ${key}`))
}

/** How long a living worker may take over a file that it is writing, such as the end record of a job that has just left. */
const writingMs = 2_000

/** I5, after a run: what is left on a second look too. */
const nothingStays = async (subject: Subject): Promise<Violation[]> => {
  const first = await nothingLeft(subject)
  if (first.length === 0) return []
  await sleep(writingMs)
  const second = new Set((await nothingLeft(subject)).map((v) => v.what))
  return first.filter((v) => second.has(v.what))
}

/** I5: no process of a job, no job of a scheduler, no job without an end, no temporary file. */
export const nothingLeft = async ({ stand }: Pick<Subject, 'stand'>): Promise<Violation[]> => {
  const { storeDir } = stand.system
  const processes = await jobProcesses(storeDir)
  const jobs = await jobsIn(storeDir)
  const queued = (await listed(stand)).filter((r) => phaseOf(r.state) !== 'over')
  const debris = (await readdir(storeDir, { recursive: true })).filter((name) => name.split('/').at(-1)?.startsWith('.tmp-') === true)
  return [
    ...processes.map(({ pid, folder }) => violation('I5', `process ${pid} of ${folder.split('/').slice(-3).join('/')} is still there`)),
    ...jobs.filter((j) => j.started !== null && j.end === null && j.isRunning).map((j) => violation('I5', `${placeOf(j)} still runs`)),
    ...queued.map((r) => violation('I5', `the scheduler still has job ${r.id} of ${r.name}: ${r.state}`)),
    ...debris.map((name) => violation('I5', `temporary file ${name}`)),
  ]
}

/** I6: after every restart training went on at the last checkpoint: behind by an interval, and by what was trained while the next save was written, which has to be done when the one after it begins. */
const littleLost = async (subject: Subject): Promise<Violation[]> => {
  if (subject.ends !== 'COMPLETED' || !subject.comparable) return []
  const record = await trainRecordOf(subject)
  // a damaged checkpoint is passed over for the one before it
  const intervals = 2 + subject.log.events.filter((e) => e.what === 'damage').length
  const restarts = (record?.result as { restarts?: { attempt: number; step: number }[] } | undefined)?.restarts ?? []
  const jobs = (await jobsIn(subject.stand.system.storeDir)).filter((j) => j.fingerprint === subject.stand.reference.train)
  const reached = (attempt: number): number => Math.max(0, ...jobs.filter((j) => j.attempt < attempt).map((j) => j.beat?.step ?? 0))
  return restarts.flatMap(({ attempt, step }) =>
    reached(attempt) - step < intervals * checkpointEverySteps ? [] : [violation('I6', `attempt ${attempt} began at step ${step}, training had reached ${reached(attempt)}, a checkpoint is due every ${checkpointEverySteps}`)])
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
export const wholeStore = async ({ stand }: Pick<Subject, 'stand'>): Promise<Violation[]> => {
  const { storeDir } = stand.system
  const ours = new Set([...stand.reference.fingerprints, ...(await jobsIn(storeDir)).map((j) => j.fingerprint)])
  const damages = await Promise.all([...ours].map(async (fingerprint) => {
    const commit = join(storeDir, 'commits', fingerprint.slice(0, 2), `${fingerprint}.json`)
    const folder = join(storeDir, 'checkpoints', fingerprint.slice(0, 2), fingerprint)
    const names = (await readdir(folder).catch(() => [])).filter((n) => n.endsWith('.json') && !n.startsWith('.tmp-'))
    return (await Promise.all([commit, ...names.map((n) => join(folder, n))].map((path) => damageOf(storeDir, path)))).flat()
  }))
  return damages.flat()
}

const damageOf = async (storeDir: string, recordPath: string): Promise<Violation[]> => {
  const text = await readFile(recordPath, 'utf8').catch(() => null)
  if (text === null) return []
  const what = recordPath.split('/').slice(-3).join('/')
  let files: { path: string; sha256: string }[]
  try {
    files = Named.parse(JSON.parse(text)).files
  } catch (e) {
    return [violation('I8', `${what} is visible and no record: ${String(e).slice(0, 200)}`)]
  }
  const bad: string[] = []
  for (const f of files) {
    const bytes = await readFile(join(storeDir, f.path)).catch(() => null)
    if (bytes === null || sha256(bytes) !== f.sha256) bad.push(`${f.path} ${bytes === null ? 'is missing' : 'is not what the record says'}`)
  }
  // a checkpoint may be pruned while it is looked at: its record goes first
  const isVisible = await readFile(recordPath).then(() => true, () => false)
  return isVisible ? bad.map((b) => violation('I8', `${what}: ${b}`)) : []
}

const Named = z.object({ files: z.array(z.object({ path: z.string(), sha256: z.string() })) })

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
