import { randomUUID } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isAlive, signalProcess, Started } from '@cpt/activities/job-runner/process'
import type { AlmrLrSweepInput, AlmrLrSweepResult } from '@cpt/contracts/almr-lr-sweep'
import type { RunProgress } from '@cpt/contracts/cpt-run'
import { controlQueue } from '@cpt/contracts/ids'
import { type EndRecord, JobRequest } from '@cpt/contracts/job'
import type { TrialPoint } from '@cpt/contracts/sweep'
import { TrainResult } from '@cpt/contracts/train'
import { claimsIn, commitsOf, forgetStages, jobsIn, type JobEntry } from '../../harness/store.ts'
import type { System } from '../../harness/system.ts'
import type { Loss, Span, SweepRun, Trained } from './sweep-run.ts'

/** The jobs of a trial, in their order. */
export const trialStages = ['sample-mixture', 'train'] as const

/** A trial as a peer is to run it: the requests of our jobs. */
export interface TrialJobs {
  index: number
  jobs: JobRequest[]
}

/** Prepares corpus and base by a sweep whose budget allows no trial; the warm parent runs afterwards. */
export const prepare = async (system: System, input: AlmrLrSweepInput): Promise<void> => {
  const { trials } = await (await startSweep(system, { ...input, budgetGpuSeconds: 1e-6 })).result()
  const begun = trials.filter((t) => t.status !== 'unstarted')
  if (begun.length > 0) throw new Error(`the preparation began ${begun.length} trials; expected none within a budget of nothing`)
}

/** One sweep from its start to its verdict, and what its trials asked of their jobs. */
export const sweepOnce = async (system: System, input: AlmrLrSweepInput): Promise<{ run: SweepRun; jobs: TrialJobs[]; points: TrialPoint[] }> => {
  const beganMs = Date.now()
  const result = await (await startSweep(system, input)).result()
  const endedMs = Date.now()
  const { spans, trials, jobs } = await collect(system, result)
  return { run: { driver: 'ours', beganMs, endedMs, spans, trials }, jobs, points: result.trials.map((t) => t.point) }
}

/** The same with everything of `kill` ended by SIGKILL when half of the trials are done and all lanes train; forgets the trials of earlier sweeps first. */
export const sweepKilled = async (system: System, input: AlmrLrSweepInput, kill: 'worker' | 'everything', numTrials: number, parallel: number): Promise<{ run: SweepRun; loss: Loss }> => {
  await forgetTrials(system)
  const beganMs = Date.now()
  const handle = await startSweep(system, input)
  for (;;) {
    const done = await endedTrials(system)
    if (done >= numTrials / 2 && done < numTrials && (await inTraining(system)).length >= Math.min(parallel, numTrials - done)) break
    if (done === numTrials) throw new Error('all trials were over before one could be killed')
    await sleep(200)
  }
  const pids = kill === 'worker' ? [] : [...(await jobsIn(system.storeDir)).flatMap((j) => (j.isRunning && j.started !== null ? [j.started.pid] : [])), ...(await warmParents(system))]
  await Promise.all([system.killWorker(), ...(kill === 'everything' ? [system.killServer()] : []), ...pids.map((pid) => Promise.resolve(signalProcess(pid, 'SIGKILL')))])
  const caught = await jobsIn(system.storeDir)
  const committed = new Set((await commitsOf(system.storeDir)).map((c) => c.fingerprint))
  if (kill === 'everything') await system.startServer()
  await system.startWorker()
  const result = await ended(system, handle.workflowId)
  const endedMs = Date.now()
  const { spans, trials } = await collect(system, result)
  const run: SweepRun = { driver: 'ours', beganMs, endedMs, spans, trials }
  const again = (await claimsIn(system.storeDir)).filter((c) => c.attempt > 1)
  const lost = await Promise.all(caught.filter((j) => !committed.has(j.fingerprint) && j.beat?.phase === 'train').map(async (job) => {
    if (!again.some((c) => c.fingerprint === job.fingerprint)) return { tokens: 0, fromZero: false }
    const trained = (await commitsOf(system.storeDir)).find((c) => c.fingerprint === job.fingerprint)
    const from = TrainResult.parse(trained?.result).restarts.at(-1)?.tokens ?? 0
    return { tokens: Math.max(0, (job.beat?.tokens ?? 0) - from), fromZero: from === 0 }
  }))
  return {
    run,
    loss: {
      driver: 'ours', how: kill === 'worker' ? 'worker' : 'worker, server, jobs and warm parent', wallSeconds: (endedMs - beganMs) / 1000,
      trialsAgain: again.filter((c) => committed.has(c.fingerprint)).length, trialsFromZero: lost.filter((l) => l.fromZero).length, tokensTwice: lost.map((l) => l.tokens),
    },
  }
}

/** Removes what the trials of earlier sweeps left; the prepared corpus stays. */
export const forgetTrials = (system: System): Promise<void> => forgetStages(system.storeDir, (stage) => (trialStages as readonly string[]).includes(stage))

const startSweep = (system: System, input: AlmrLrSweepInput) =>
  system.client.workflow.start<(input: AlmrLrSweepInput) => Promise<AlmrLrSweepResult>>('almrLrSweep', { taskQueue: controlQueue, workflowId: `sweep/bench-${randomUUID().slice(0, 8)}`, args: [input] })

/** The result of a sweep during which the server may be away. */
const ended = async ({ client }: System, workflowId: string): Promise<AlmrLrSweepResult> => {
  for (;;) {
    const status = await client.workflow.getHandle(workflowId).describe().then((d) => d.status.name, () => 'RUNNING')
    if (status !== 'RUNNING') return await client.workflow.getHandle<(input: AlmrLrSweepInput) => Promise<AlmrLrSweepResult>>(workflowId).result()
    await sleep(200)
  }
}

const endedTrials = async ({ storeDir }: System): Promise<number> => (await commitsOf(storeDir)).filter((c) => c.stage === 'train').length
const inTraining = async ({ storeDir }: System): Promise<JobEntry[]> => (await jobsIn(storeDir)).filter((j) => j.isRunning && j.beat?.phase === 'train' && (j.beat.lastCommitTokens ?? 0) > 0)

const warmParents = async ({ stateDir }: System): Promise<number[]> => {
  const folder = join(stateDir, 'warm')
  const records = (await readdir(folder).catch(() => [])).filter((n) => n.endsWith('.json'))
  const parents = await Promise.all(records.map(async (name) => Started.parse(JSON.parse(await readFile(join(folder, name), 'utf8')))))
  return (await Promise.all(parents.map(async (p) => ((await isAlive(p)) ? [p.pid] : [])))).flat()
}

const collect = async (system: System, result: AlmrLrSweepResult): Promise<{ spans: Span[]; trials: Map<number, Trained>; jobs: TrialJobs[] }> => {
  const entries = await jobsIn(system.storeDir)
  const commits = await commitsOf(system.storeDir)
  const [spans, trials, jobs]: [Span[], Map<number, Trained>, TrialJobs[]] = [[], new Map(), []]
  for (const { index, status, workflowId } of result.trials) {
    if (status !== 'done') throw new Error(`trial ${index} is ${status}, expected done: ${workflowId}`)
    const { stages } = await system.client.workflow.getHandle(workflowId).query<RunProgress>('progress')
    const requests: JobRequest[] = []
    for (const stage of trialStages) {
      const line = stages.find((s) => s.stage === stage)
      const ran = entries.filter((j) => j.fingerprint === line?.fingerprint)
      if (line === undefined || ran.length === 0) throw new Error(`trial ${index}: no job of ${stage}; expected one, as the trials of earlier sweeps were forgotten`)
      requests.push(JobRequest.parse(JSON.parse(await readFile(join(ran[0]!.folder, 'request.json'), 'utf8'))))
      for (const job of ran) if (job.end?.endClass === 'done') spans.push(await spanOf(index, stage, job.folder, job.end))
    }
    const trained = TrainResult.parse(commits.find((c) => c.fingerprint === stages.find((s) => s.stage === 'train')?.fingerprint)?.result)
    trials.set(index, { weightsSha256: trained.weightsSha256, strata: trained.measurement.strata })
    jobs.push({ index, jobs: requests })
  }
  return { spans, trials, jobs }
}

const spanOf = async (index: number, stage: string, folder: string, { wallSeconds, startupSeconds = 0 }: EndRecord): Promise<Span> => {
  const toMs = (await stat(join(folder, 'end.json'))).mtimeMs
  return { index, stage, fromMs: toMs - (wallSeconds - startupSeconds) * 1000, toMs }
}
