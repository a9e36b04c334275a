import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { CancelledFailure, Context } from '@temporalio/activity'
import type { LiveProgress } from '@cpt/contracts/cpt-run'
import { failures, type FailureEvidence, type FailureType } from '@cpt/contracts/failures'
import type { Beat, EndRecord, JobRequest, JobUnit, Placement } from '@cpt/contracts/job'
import type { Stage } from '@cpt/contracts/stage'
import { claimAttempt, claimsOf, enterAsker, jobFolder, renewLease, withdrawAsker } from './claims.ts'
import type { Deps } from './deps.ts'
import { failpoint } from './failpoint.ts'
import { isHeld, isPausedEnd, paused, pausedAt } from './hold.ts'
import { sweepDebris } from './job-debris.ts'
import { JobNotStarted, type JobFolder, type JobRunner, type JobState } from './job-runner/job-runner.ts'
import { readLogTail, writeEnd } from './job-runner/local.ts'
import { needsPerson, tryAgain } from './stage-failure.ts'

/** One range of a stage's work, as the watcher needs it. */
export interface RangeWork {
  stage: Stage
  fingerprint: string
  range: number
  request: unknown
  parents: string[]
  placement: Placement
  /** The line of the run that asks, see askerOf. */
  asker: string
  key: string
  decision: number
  /** Units that are not committed yet; null for a whole stage. */
  pending: () => Promise<JobUnit[] | null>
  /** Whether the range's work is committed. */
  isCommitted: () => Promise<boolean>
  /** What is committed so far; changes exactly when something new is. */
  progress: () => Promise<string>
  /** Set when another range of the stage has failed: this one is left running and watched again by the next activity attempt. */
  detach: AbortSignal
}

const pollMs = 250
const stopGraceMs = 20_000
/** Beside the end record of a job that was stopped because it stood still: such an end is a failure. */
const stuckMark = 'stuck'
/** Failures in a row, without anything new committed, after which a person is asked. */
const budget = 3

/**
 * Sees one range to its commit: attaches to the running attempt or claims the next, polls, renews the lease, obeys
 * cancellation. Returns the number of attempts; throws a retryable failure when the attempt ended and the next may
 * begin, a non-retryable one when a person must decide.
 */
export const watchRange = async (deps: Deps, work: RangeWork): Promise<number> => {
  const ctx = Context.current()
  const { asker } = work
  const runner = runnerOf(deps, work)
  const evidence = async (job: JobFolder, end: Pick<EndRecord, 'endClass'>) => ({
    stage: work.stage.name, fingerprint: work.fingerprint, attempts: job.attempt, endClass: end.endClass, logTail: await readLogTail(job),
  })

  const current = await currentAttempt(deps, work, asker)
  if ('committedBy' in current) return current.committedBy
  const job = current
  const mine: { submitted: boolean; lease: number } & Pace = { submitted: false, lease: 0, signalledAt: performance.now(), signalGapMs: 3_000, first: null }
  await enterAsker(deps.workDir, work.placement.runner, job, asker)
  const startedAt = performance.now()
  const seen = { tokens: -1, done: -1, phase: '', at: startedAt }
  for (;;) {
    const state = await runner.look(job)
    switch (state.state) {
      case 'absent':
        if (mine.submitted && performance.now() - startedAt < 5_000) break // the process is on its way
        if (isHeld(deps.workDir, asker)) throw paused(`${work.stage.name}: paused before it began`)
        {
          const request = await requestOf(deps, work, job)
          await prepare(job, request)
          failpoint('request-written')
          await renewLease(job, asker, mine.lease++)
          await submit(deps, work, job, request)
          failpoint('job-submitted')
        }
        mine.submitted = true
        break
      case 'waiting':
      case 'unknown':
        await renewLease(job, asker, mine.lease++)
        seen.at = performance.now() // a job is not to blame for a queue, nor for a scheduler that does not answer
        await reportProgress(deps, ctx, work, job, { phase: state.state === 'waiting' ? `waiting: ${state.reason}` : `not to be asked: ${state.why}`, done: 0, total: 0, unit: '', seq: 0 }, mine)
        break
      case 'running':
        await renewLease(job, asker, mine.lease++)
        await reportProgress(deps, ctx, work, job, state.beat, mine)
        if (isStuck(state, seen, work.placement.noProgressSeconds)) {
          deps.log.warn({ key: work.key, attempt: job.attempt }, 'no progress: stopping the job')
          await writeFile(join(job.path, stuckMark), '')
          await runner.stop(job, stopGraceMs)
        }
        break
      case 'gone':
        await writeEnd(job, state.end)
        break
      case 'ended':
        failpoint('end-seen')
        await sweepDebris(job)
        if (await work.isCommitted()) return job.attempt
        if (isPausedEnd(state.end) && isHeld(deps.workDir, asker)) throw paused(`${work.stage.name}: ${pausedAt(work.request, state.end, await work.pending())}`)
        throw judge(work, job, state.end, await evidence(job, state.end))
    }
    await untilNextLook(ctx, work, job, asker, () => runner.stop(job, stopGraceMs))
  }
}

/** Thrown by a range that stops watching because another one failed; the activity fails with that one's failure. */
export class Detached extends Error {
  override readonly name = 'Detached'
}

const runnerOf = (deps: Deps, { stage, placement, fingerprint }: RangeWork): JobRunner => {
  const runner = deps.runners[placement.runner]
  if (runner !== undefined) return runner
  throw needsPerson('BadRequest', `${stage.name}: placement.runner is ${placement.runner}, but this worker knows ${Object.keys(deps.runners).join(', ')}: configure it or patch the placement`, { stage: stage.name, fingerprint, attempts: 0, endClass: 'bad-request', logTail: [] })
}

const submit = async (deps: Deps, work: RangeWork, job: JobFolder, request: JobRequest): Promise<void> => {
  try {
    await runnerOf(deps, work).submit(job, request)
  } catch (e) {
    if (!(e instanceof JobNotStarted)) throw e
    throw needsPerson('NeedsAttention', `${work.stage.name}: ${e.message}`, { stage: work.stage.name, fingerprint: work.fingerprint, attempts: job.attempt, endClass: 'failed', logTail: [] })
  }
}

/** Waits for the next look; on cancellation stops the job (a person asked) or leaves it running (the worker goes). */
const untilNextLook = async (ctx: Context, work: RangeWork, job: JobFolder, asker: string, stop: () => Promise<void>): Promise<void> => {
  if (work.detach.aborted) throw new Detached()
  try {
    await ctx.sleep(pollMs)
  } catch (e) {
    if (!(e instanceof CancelledFailure)) throw e
    const why = ctx.cancellationDetails
    if (why?.cancelRequested === true || why?.paused === true) {
      const beating = setInterval(() => { ctx.heartbeat(null) }, 1_000)
      try {
        const { othersAsk } = await withdrawAsker(job, asker)
        if (!othersAsk) await stop()
      } finally {
        clearInterval(beating)
      }
    }
    throw e
  }
}

/**
 * The attempt to watch: the last claimed one unless it is over, else the next, claimed now; or the attempt that has
 * committed the work meanwhile. Throws when the budget is spent.
 */
const currentAttempt = async (deps: Deps, work: RangeWork, asker: string): Promise<JobFolder | { committedBy: number }> => {
  for (;;) {
    const claims = await claimsOf(deps.store, work.fingerprint, work.range)
    const last = claims.length
    let lastWords = ''
    const folder = jobFolder(deps.workDir, work.fingerprint, work.range, Math.max(1, last))
    if (last > 0) {
      const state = await runnerOf(deps, work).look(folder)
      if (state.state !== 'ended') return folder
      // a job commits before it ends: whoever looked for the commit too early must look again before claiming more work
      if (await work.isCommitted()) return { committedBy: last }
      lastWords = state.end.message
    }
    const progress = await work.progress()
    const spent = await failuresInARow(deps, work, claims.map((c) => c.workflow === asker && c.decision === work.decision && c.progress === progress))
    if (spent >= budget) {
      throw needsPerson('NeedsAttention', `${work.stage.name}: ${spent} attempts in a row failed without committing anything new; the last: ${lastWords}`, {
        stage: work.stage.name, fingerprint: work.fingerprint, attempts: last, endClass: 'failed', logTail: await readLogTail(folder),
      })
    }
    const next = jobFolder(deps.workDir, work.fingerprint, work.range, last + 1)
    const claim = { workflow: asker, run: Context.current().info.workflowExecution?.runId ?? '', key: work.key, decision: work.decision, runner: work.placement.runner, host: hostname(), progress, at: new Date().toISOString() }
    if (!(await claimAttempt(deps.store, work.fingerprint, work.range, last + 1, claim))) continue
    failpoint('attempt-claimed')
    return next
  }
}

const countsAgainstBudget = new Set<EndRecord['endClass']>(['failed', 'killed', 'vanished', 'again'])

/** Attempts that count: asked for by this line since the last operator decision, with nothing committed since. */
const failuresInARow = async (deps: Deps, work: RangeWork, counts: boolean[]): Promise<number> => {
  const ends = await Promise.all(
    counts.map(async (counted, i) => {
      if (!counted) return false
      const job = jobFolder(deps.workDir, work.fingerprint, work.range, i + 1)
      const state: JobState = await runnerOf(deps, work).look(job)
      return state.state === 'ended' && (countsAgainstBudget.has(state.end.endClass) || existsSync(join(job.path, stuckMark)))
    }),
  )
  return ends.filter(Boolean).length
}

const prepare = async (job: JobFolder, request: JobRequest): Promise<void> => {
  await mkdir(job.path, { recursive: true })
  // two watchers may prepare the same attempt: each writes the file whole
  const tmp = join(job.path, `.tmp-${randomUUID()}`)
  await writeFile(tmp, JSON.stringify(request))
  await rename(tmp, join(job.path, 'request.json'))
}

const requestOf = async (deps: Deps, work: RangeWork, job: JobFolder): Promise<JobRequest> => ({
  format: 'cpt-job/1',
  stage: work.stage.name,
  version: work.stage.version,
  fingerprint: work.fingerprint,
  range: job.range,
  attempt: job.attempt,
  token: `${work.fingerprint.slice(0, 12)}-r${job.range}-a${job.attempt}`,
  roots: deps.config.roots,
  request: work.request,
  units: await work.pending(),
  parents: work.parents,
  placement: work.placement,
  leaseSeconds: deps.config.leaseSeconds,
})

/** Ordered rules from an end record to what happens next. */
const judge = (work: RangeWork, job: JobFolder, end: EndRecord, evidence: FailureEvidence): Error => {
  const what = `${work.stage.name}, attempt ${job.attempt}: ${end.message}`
  switch (end.endClass) {
    case 'bad-request':
    case 'bad-data':
    case 'diverged':
    case 'do-not-restart':
      return needsPerson(end.type in failures ? (end.type as FailureType) : 'BadRequest', what, evidence)
    case 'done':
      return needsPerson('StoreCorrupt', `${work.stage.name}: the job says it is done, but nothing is committed`, evidence)
    case 'failed':
    case 'killed':
    case 'vanished':
    case 'again':
    case 'stopped':
    case 'orphaned':
    case 'superseded':
    case 'preempted':
    case 'time-limit':
    case 'node-lost':
      // memory and disk do not mend themselves by trying again unchanged
      return end.type === 'OutOfMemory' || end.type === 'DiskFull' ? needsPerson(end.type, what, evidence) : tryAgain(what, evidence)
  }
}

/** Whether the beat has stood still longer than allowed; import and start-up count too. */
const isStuck = (state: { beat: Beat | null }, seen: { tokens: number; done: number; phase: string; at: number }, noProgressSeconds: number): boolean => {
  const [tokens, done, phase] = [state.beat?.tokens ?? -1, state.beat?.done ?? -1, state.beat?.phase ?? '']
  if (tokens !== seen.tokens || done !== seen.done || phase !== seen.phase) Object.assign(seen, { tokens, done, phase, at: performance.now() })
  return performance.now() - seen.at > noProgressSeconds * 1000
}

interface Pace {
  signalledAt: number
  signalGapMs: number
  /** Where the present phase stood when this watcher first saw it: the rate, and so the ETA, come from there. */
  first: { phase: string; done: number; at: number } | null
}

/** Seconds until `total` at the pace seen so far; null before there is one. */
const etaSeconds = (beat: Beat, pace: Pace): number | null => {
  // each shard counts from zero again
  if (pace.first?.phase !== beat.phase || beat.done < pace.first.done) pace.first = { phase: beat.phase, done: beat.done, at: performance.now() }
  const seconds = (performance.now() - pace.first.at) / 1000
  const done = beat.done - pace.first.done
  // the first seconds of a phase say little about its pace
  return seconds > 2 && done > 0 && beat.total > 0 ? ((beat.total - beat.done) * seconds) / done : null
}

/** Heartbeats carry the live numbers; the workflow hears of them rarely, since each signal is history. */
const reportProgress = async (deps: Deps, ctx: Context, work: RangeWork, job: JobFolder, beat: Beat | null, pace: Pace): Promise<void> => {
  const live: LiveProgress = {
    key: work.key, phase: beat?.phase ?? 'starting', done: beat?.done ?? 0, total: beat?.total ?? 0,
    step: beat?.step ?? null, tokens: beat?.tokens ?? null, loss: beat?.loss ?? null, tokensPerSecond: beat?.tokensPerSecond ?? null,
    etaSeconds: beat === null ? null : etaSeconds(beat, pace), attempts: job.attempt,
  }
  ctx.heartbeat(live)
  const workflow = ctx.info.workflowExecution
  if (workflow === undefined || beat === null) return
  if (performance.now() - pace.signalledAt < pace.signalGapMs) return
  Object.assign(pace, { signalledAt: performance.now(), signalGapMs: Math.min(pace.signalGapMs * 1.5, 600_000) })
  await deps.client.workflow.getHandle(workflow.workflowId, workflow.runId).signal('liveProgress', live).catch((e: unknown) => { deps.log.debug({ err: e }, 'live progress not delivered') })
}
