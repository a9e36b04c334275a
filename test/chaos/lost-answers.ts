import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ApplicationFailure, type Logger } from '@temporalio/common'
import { MockActivityEnvironment } from '@temporalio/testing'
import { localDiskStore } from '@cpt/activities/artifact-store/local-disk'
import { claimsOf } from '@cpt/activities/claims'
import type { Deps } from '@cpt/activities/deps'
import type { SlurmCommand } from '@cpt/activities/job-runner/slurm-commands'
import { listJobs } from '@cpt/activities/job-runner/slurm-commands'
import { runStage } from '@cpt/activities/run-stage'
import { stage } from '@cpt/contracts/stage'
import { z } from 'zod'
import { startSlurm } from '../../infra/slurm/start.mjs'
import { openSlurmBench } from '../clusters/slurm-bench.ts'
import { experiment } from './experiment.ts'
import { describeViolations, onStands, rowOf, type Session, type Task } from './session.ts'
import type { Stand } from './stand.ts'
import { boundOfZero, type Row } from './table.ts'

const say = (): void => undefined
const silent: Logger = { log: say, trace: say, debug: say, info: say, warn: say, error: say }

/** What sbatch prints when slurmctld took the job and its answer did not come in time. */
const timedOut = { code: 1, stdout: '', stderr: 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' }

/** The cluster's programs, of which sbatch loses the answer of each job's first submission. */
const losingFirstAnswers = (run: SlurmCommand): { run: SlurmCommand; lost: () => number } => {
  const seen = new Set<string>()
  return {
    lost: () => seen.size,
    run: async (program, args) => {
      const answer = await run(program, args)
      const key = args.find((a) => a.startsWith('--job-name=')) ?? args.join(' ')
      if (program !== 'sbatch' || answer.code !== 0 || seen.has(key)) return answer
      seen.add(key)
      return timedOut
    },
  }
}

/** What a first implementation does: submit, and on an error submit again without a look-up. */
const naiveDuplicates = async (run: SlurmCommand, count: number): Promise<number> => {
  const { run: losing } = losingFirstAnswers(run)
  for (let i = 0; i < count; i++) {
    const args = [`--job-name=naive-${i}`, '--output=/dev/null', '--wrap=true']
    if ((await losing('sbatch', args)).code !== 0) await losing('sbatch', args)
  }
  const rows = await listJobs(run)
  if (!Array.isArray(rows)) throw new Error(rows.failed)
  return rows.filter((r) => r.name.startsWith('naive-')).length - count
}

const watchersAtOnce = 16
/** Live numbers go nowhere here. */
const withoutServer = { workflow: { getHandle: () => ({ signal: () => Promise.reject(new Error('no server in this experiment')) }) } }

/** Jobs on a real Slurm, each submitted once with its answer lost: the scheduler's own list says how many there were. */
export const lostAnswersOnSlurm = async (session: Session): Promise<Row[]> => {
  const began = performance.now()
  // nothing is forgotten before it is counted
  const slurm = await startSlurm({ settings: { MinJobAge: 3600 } })
  try {
    const bench = await openSlurmBench(slurm)
    const { run, lost } = losingFirstAnswers(bench.command)
    const deps = { config: { roots: { store: bench.root }, leaseSeconds: 600, slots: 8 }, store: localDiskStore({ store: bench.root }), workDir: bench.root, runners: { slurm: bench.runnerWith({ run }) }, client: withoutServer, log: { warn: say, debug: say, info: say, error: say } } as unknown as Deps
    const attempts: number[] = []
    const fingerprints: string[] = []
    const left = Array.from({ length: session.count }, (_, i) => i)
    const watch = async (): Promise<void> => {
      for (let i = left.shift(); i !== undefined; i = left.shift()) {
        const outcome = await stageDone(deps, { do: 'commit', number: i, seed: session.seed })
        attempts.push(outcome.attempts)
        fingerprints.push(outcome.fingerprint)
        if (fingerprints.length % 20 === 0) session.say(`slurm lost answers: ${fingerprints.length} of ${session.count} committed, ${lost()} answers lost`)
      }
    }
    await Promise.all(Array.from({ length: watchersAtOnce }, watch))
    const rows = await listJobs(bench.command)
    if (!Array.isArray(rows)) throw new Error(rows.failed)
    const submissions = fingerprints.map((fingerprint) => rows.filter((r) => r.name.startsWith(`cpt-${fingerprint.slice(0, 16)}-`)).length)
    const duplicates = submissions.reduce((sum, n) => sum + Math.max(0, n - 1), 0)
    const unseen = submissions.filter((n) => n === 0).length
    const repeated = attempts.filter((n) => n !== 1).length
    const naive = await naiveDuplicates(bench.command, session.count)
    await bench.close()
    return [rowOf(session, began, {
      section: 'answers', measure: 'duplicate submissions after lost answers of sbatch on Slurm (MessageTimeout 3 s instead of 10 s)',
      ours: duplicates, peer: naive, peerName: 'submit, on an error submit again', unit: `jobs too many of ${lost()} lost answers; ${repeated} attempts too many, ${unseen} jobs that the scheduler did not list`, ratio: naive === 0 ? null : duplicates / naive,
      goal: '0', holds: duplicates === 0 && repeated === 0 && unseen === 0 && lost() === session.count, bound: duplicates === 0 ? boundOfZero(lost()) : null, count: lost(),
    })]
  } finally {
    await slurm.stop()
  }
}

/** A stage for the cluster tests: a job that commits at once. */
const caseStage = stage({ name: 'case', version: 1, shape: { kind: 'whole' }, request: z.strictObject({ do: z.literal('commit'), number: z.int(), seed: z.int() }), result: z.unknown() })

/** The activity of a stage, run again after each retryable failure as Temporal does; the attempts of its job. */
const stageDone = async (deps: Deps, request: z.input<typeof caseStage.request>): Promise<{ fingerprint: string; attempts: number }> => {
  const run = { workflowId: `line-${request.number}`, runId: 'run', firstRunId: 'run' }
  for (let tries = 0; ; tries++) {
    try {
      const activity = new MockActivityEnvironment({ workflowExecution: run }, { logger: silent })
      const call = { request, placement: { runner: 'slurm' }, key: 'case', decision: 0, run } as Parameters<ReturnType<typeof runStage<typeof caseStage>>>[0]
      const { fingerprint } = z.object({ fingerprint: z.string() }).parse(await activity.run(runStage(deps, caseStage), call))
      return { fingerprint, attempts: (await claimsOf(deps.store, fingerprint, 0)).length }
    } catch (e) {
      if (tries > 50 || (e instanceof ApplicationFailure && e.nonRetryable === true)) throw e
      await sleep(200)
    }
  }
}

/** Whole runs on this machine in which every adapter of the worker loses one answer in `every`. */
export const answersLost = async (stand: Stand, seed: number): Promise<{ lost: number; violations: string; seconds: number }> => {
  const log = join(stand.system.stateDir, 'logs', 'worker.log')
  const lostSoFar = async (): Promise<number> => (await readFile(log, 'utf8')).split('answer lost on purpose').length - 1
  const before = await lostSoFar()
  let lost = 0
  const outcome = await experiment(stand, {
    name: 'answers', seed,
    disturb: async (_run, events, over) => {
      await new Promise<void>((resolve) => over.addEventListener('abort', () => resolve()))
      lost = (await lostSoFar()) - before
      events.add('answers-lost', { lost })
    },
  })
  return { lost, violations: describeViolations(outcome.violations), seconds: outcome.seconds }
}

export const oneAnswerIn = 40

export const lostAnswersOnLocal = async (session: Session): Promise<Row[]> => {
  const began = performance.now()
  let [lost, runs] = [0, 0]
  const unplanned: string[] = []
  const tasks = function* (): Generator<Task> {
    for (let seed = session.seed + 40_000; lost < session.count; seed++) {
      yield async (stand) => {
        const outcome = await answersLost(stand, seed)
        lost += outcome.lost
        runs += 1
        if (outcome.violations !== '') unplanned.push(`seed ${seed}: ${outcome.violations}`)
        session.say(`local lost answers: ${lost} of ${session.count} in ${runs} runs, the last took ${outcome.seconds.toFixed(0)} s${outcome.violations === '' ? '' : `; ${outcome.violations}`}`)
      }
    }
  }
  await onStands(session, 'local', { settings: { CPT_LOST_ANSWERS: `${session.seed}:${oneAnswerIn}` } }, tasks(), (e) => {
    unplanned.push(e instanceof Error ? e.message : String(e))
    session.say(`local FAILED: ${e instanceof Error ? e.message : String(e)}`)
  })
  return [rowOf(session, began, {
    section: 'answers', measure: 'local runs that lost answers of store, runner and server left a trace in (I1 to I9)', ours: unplanned.length, unit: `of ${runs} runs with ${lost} lost answers`, goal: '0',
    holds: unplanned.length === 0, bound: unplanned.length === 0 ? boundOfZero(lost) : unplanned.join(' | ').slice(0, 2000), count: lost,
  })]
}
