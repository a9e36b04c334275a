import { spawn } from 'node:child_process'
import { open, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { putFileIfAbsent } from '@cpt/activities/artifact-store/local-disk'
import type { EndRecord } from '@cpt/contracts/job'
import { startRun } from '../harness/runs.ts'
import { checkpointsOf, claimsIn, jobsIn, type JobEntry } from '../harness/store.ts'
import { until } from '../harness/until.ts'
import type { Violation } from './checker.ts'
import { experiment, type Outcome } from './experiment.ts'
import { killWorker } from './faults.ts'
import { killAt } from './kills.ts'
import { leaveAt } from './leave.ts'
import { checkpointEverySteps, slowRun, type Stand } from './stand.ts'
import { unsyncedRecords } from './syscall-order.ts'

/** A fault in which healthy code keeps every invariant, and code with a certain bug does not. */
export type Scenario = (stand: Stand, seed: number) => Promise<Violation[]>

type Training = JobEntry & { started: NonNullable<JobEntry['started']> }

/** The training that runs, once its last checkpoint is at `step` or later. */
const trainingAt = (stand: Stand, step: number, over: AbortSignal, fingerprint: string | null = stand.reference.train): Promise<Training> =>
  until(`a training at step ${step}`, async () => {
    if (over.aborted) throw new Error(`the run was over before its training reached step ${step}`)
    const job = (await jobsIn(stand.system.storeDir)).find((j) => (fingerprint === null ? j.beat?.phase === 'train' : j.fingerprint === fingerprint) && j.isRunning && j.end === null)
    if (job?.started == null) return null
    const last = (await checkpointsOf(stand.system.storeDir, job.fingerprint).catch(() => [])).at(-1)
    return (last?.step ?? 0) >= step ? { ...job, started: job.started } : null
  }, 300)

const violationsOf = async (outcome: Promise<Outcome>): Promise<Violation[]> => (await outcome).violations

/** The training is killed once, in its middle. */
export const jobKilled: Scenario = (stand, seed) => violationsOf(experiment(stand, {
  name: 'job-killed', seed,
  disturb: async (_run, log, over) => {
    const job = await trainingAt(stand, 5 * checkpointEverySteps, over)
    process.kill(job.started.pid, 'SIGKILL')
    log.add('kill', { target: 'job', pid: job.started.pid, attempt: job.attempt })
  },
}))

/** The training is killed when it has written a checkpoint's files and not its record. */
export const killedInSave: Scenario = async (stand, seed) => (await killAt(stand, 'checkpoint-written', seed, 5)).violations

/** The training stands still, is given up, and comes back beside its successor. */
export const staleAttempt: Scenario = (stand, seed) => violationsOf(experiment(stand, {
  name: 'stale', seed,
  disturb: async (_run, log, over) => {
    const job = await trainingAt(stand, 5 * checkpointEverySteps, over)
    process.kill(job.started.pid, 'SIGSTOP')
    const end: EndRecord = { format: 'cpt-end/1', endClass: 'vanished', type: 'JobEnded', message: 'its node does not answer', exitCode: null, signal: null, progressTokens: 0, logTail: [], wallSeconds: 0 }
    await putFileIfAbsent(join(job.folder, 'end.json'), Buffer.from(JSON.stringify(end)))
    log.add('given-up', { pid: job.started.pid, attempt: job.attempt })
    await until('the next attempt to be claimed', async () => (await claimsIn(stand.system.storeDir)).some((c) => c.fingerprint === job.fingerprint && c.attempt === job.attempt + 1))
    process.kill(job.started.pid, 'SIGCONT')
    log.add('comes-back', { pid: job.started.pid })
  },
}))

/** One attempt is submitted a second time, as after an answer that was lost. */
export const submittedTwice: Scenario = (stand, seed) => violationsOf(experiment(stand, {
  name: 'submitted-twice', seed,
  disturb: async (_run, log, over) => {
    const job = await trainingAt(stand, 0, over)
    const { config } = stand.system
    const output = await open(join(job.folder, 'log.jsonl'), 'a')
    const child = spawn(config.python, ['-m', 'cpt_ml', 'train', '--request', join(job.folder, 'request.json'), '--result', join(job.folder, 'result.json')], {
      cwd: join(config.home, 'ml'), env: config.jobEnv, detached: true, stdio: ['ignore', output.fd, output.fd],
    })
    log.add('submitted-again', { pid: child.pid, attempt: job.attempt })
    await new Promise((resolve) => child.once('exit', resolve))
    await output.close()
    log.add('second-ended', { exitCode: child.exitCode, signal: child.signalCode })
  },
}))

/** The last checkpoint is damaged on the disk, and the training killed. */
export const checkpointDamaged: Scenario = (stand, seed) => violationsOf(experiment(stand, {
  name: 'checkpoint-damaged', seed,
  disturb: async (_run, log, over) => {
    const job = await trainingAt(stand, 6 * checkpointEverySteps, over)
    process.kill(job.started.pid, 'SIGSTOP')
    const tip = (await checkpointsOf(stand.system.storeDir, job.fingerprint)).at(-1)
    const weights = tip?.files.find((f) => f.name.endsWith('.safetensors'))
    if (weights === undefined) throw new Error('the last checkpoint names no weights')
    const path = join(stand.system.storeDir, weights.path)
    const bytes = await readFile(path)
    bytes.fill(0, Math.floor(bytes.length / 2), Math.floor(bytes.length / 2) + 4096)
    await writeFile(path, bytes)
    log.add('damage', { file: weights.path, step: tip?.step })
    process.kill(job.started.pid, 'SIGKILL')
    log.add('kill', { target: 'job', pid: job.started.pid, attempt: job.attempt })
  },
}))

/** The worker is killed while the training runs, and comes back. */
export const workerKilled: Scenario = (stand, seed) => violationsOf(experiment(stand, {
  name: 'worker-killed', seed,
  input: slowRun(stand.runner, {}, 120),
  disturb: async (_run, log, over) => {
    await trainingAt(stand, 5, over, null)
    await killWorker(stand, log, 0)
  },
}))

/** Two runs want the same training; the one that asked last is cancelled. */
export const oneAskerLeaves: Scenario = (stand, seed) => violationsOf(experiment(stand, {
  name: 'two-askers', seed,
  input: slowRun(stand.runner, {}, 200),
  disturb: async (_run, log, over) => {
    const other = await startRun(stand.system, 'other-asker', slowRun(stand.runner, {}, 200))
    log.add('second-asker', { workflowId: other.workflowId })
    const job = await until('two askers of one training', async () => {
      if (over.aborted) throw new Error('the run was over before two asked for its training')
      const training = (await jobsIn(stand.system.storeDir)).find((j) => j.beat?.phase === 'train' && j.isRunning)
      return training !== undefined && (await readdir(join(training.folder, 'askers'))).length === 2 ? training : null
    }, 300)
    log.add('cancel', { workflowId: other.workflowId, attempt: job.attempt })
    await other.cancel()
    await other.result().catch((e: unknown) => log.add('other-ended', { error: String(e) }))
  },
}))

/** The run is terminated while its training runs: nobody is left to stop the job but its lease. */
export const terminated: Scenario = async (stand, seed) => (await leaveAt(stand, 'terminate', seed, async (over) => { await trainingAt(stand, 5, over, null) })).violations

const syscalls = 'openat,fsync,fdatasync,link,linkat,close'

/** An undisturbed training whose system calls are watched: a record's bytes are synced before its name exists. */
export const syscallsWatched: Scenario = async (stand, seed) => {
  const traces: string[] = []
  const violations = await violationsOf(experiment(stand, {
    name: 'system-calls', seed,
    disturb: async (_run, log, over) => {
      const job = await trainingAt(stand, 0, over)
      const trace = join(stand.system.stateDir, `strace-${seed}.txt`)
      const strace = spawn('strace', ['-f', '-y', '-e', `trace=${syscalls}`, '-o', trace, '-p', String(job.started.pid)], { stdio: 'ignore' })
      const gone = new Promise<void>((resolve, reject) => {
        strace.once('error', (e) => reject(new Error(`strace cannot be started (${e.message}): install it, the order of system calls is what this experiment checks`)))
        strace.once('exit', () => resolve())
      })
      log.add('watched', { pid: job.started.pid })
      await gone
      traces.push(await readFile(trace, 'utf8'))
    },
  }))
  const { linked, unsynced } = unsyncedRecords(traces.join('\n'))
  if (linked === 0) violations.push({ invariant: 'I8', what: 'strace saw no record being created: nothing was checked' })
  return [...violations, ...unsynced.slice(0, 3).map((path) => ({ invariant: 'I8' as const, what: `a record got its name before its bytes were synced: ${path.split('/').slice(-3).join('/')}` }))]
}
