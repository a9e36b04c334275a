import { appendFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CancelledFailure, Context } from '@temporalio/activity'
import type { EndRecord, JobRequest, Placement } from '@cpt/contracts/job'
import { currentAttempt, judge, stuckMark, type Attempt } from './attempts.ts'
import { enterAsker, jobFolder, renewLease, withdrawAsker } from './claims.ts'
import { classifyFailure } from './classify-failure.ts'
import type { Deps } from './deps.ts'
import { failpoint } from './failpoint.ts'
import { isHeld, isPausedEnd, leavesWhenUnwanted, paused, pausedAt } from './hold.ts'
import { sweepDebris } from './job-debris.ts'
import { endTold } from './job-runner/end-told.ts'
import { JobNotStarted, type JobFolder } from './job-runner/job-runner.ts'
import { writeEnd } from './job-runner/job-files.ts'
import { replaceFile } from './replace-file.ts'
import type { RangeWork } from './range-work.ts'
import { needsPerson } from './stage-failure.ts'
import { keepPaces, readPaces, stallWatch } from './stall-limits.ts'

const pollMs = 250
const stopGraceMs = 20_000
/** How long a process may take from its start until its job folder knows of it. */
const startMs = 5_000

/**
 * Sees one range to its commit: attaches to the running attempt or claims the next, polls, renews the lease, obeys
 * cancellation. Returns the number of attempts; throws a retryable failure when the attempt ended and the next may
 * begin, a non-retryable one when a person must decide.
 */
export const watchRange = async (deps: Deps, work: RangeWork): Promise<number> => {
  const current = await currentAttempt(deps, work)
  if ('committedBy' in current) return current.committedBy
  const leave = new AbortController()
  try {
    return await watchAttempt(deps, work, current, leave.signal)
  } finally {
    leave.abort()
  }
}

const watchAttempt = async (deps: Deps, work: RangeWork, current: Attempt, over: AbortSignal): Promise<number> => {
  const { job, runner, note } = current
  await enterAsker(deps.workDir, runner.name, job, work.asker)
  const startedAt = performance.now()
  const before = job.attempt === 1 ? {} : await readPaces(jobFolder(deps.workDir, work.fingerprint, work.range, job.attempt - 1))
  const stall = stallWatch(work.placement.noProgressSeconds, { ...before, ...(await readPaces(job)) }, startedAt)
  const leaveWhenUnwanted = leavesWhenUnwanted(deps.workDir, job, work.asker)
  let [lease, submitted] = [0, false]
  let told: Promise<void> | null = null
  for (;;) {
    const state = await runner.look(job)
    switch (state.state) {
      case 'absent':
        if (submitted && performance.now() - startedAt < startMs) break // the process is on its way
        if (isHeld(deps.workDir, work.asker)) throw paused(`${work.stage.name}: paused before it began`)
        await submit(deps, work, current, () => renewLease(job, work.asker, lease++))
        submitted = true
        break
      case 'waiting':
      case 'unknown':
        if (state.state === 'waiting' || state.letLeaseRun !== true) await renewLease(job, work.asker, lease++)
        stall.excuse(performance.now()) // a job is not to blame for a queue, nor for a scheduler that does not answer
        await work.live.report(work.range, { attempt: job.attempt, beat: null, waits: state.state === 'waiting' ? `waiting: ${state.reason}` : `not to be asked: ${state.why}`, note })
        break
      case 'running':
        await renewLease(job, work.asker, lease++)
        leaveWhenUnwanted()
        await work.live.report(work.range, { attempt: job.attempt, beat: state.beat, note })
        {
          const stuck = stall.look(state.beat, performance.now())
          if (stuck !== null) {
            await keepPaces(job, stall.paces)
            await stopStuck(deps, work, current, stuck)
          }
        }
        break
      case 'gone':
        await writeEnd(job, state.end)
        break
      case 'ended':
        failpoint('end-seen')
        await keepPaces(job, stall.paces)
        await sweepDebris(job)
        if (await work.isCommitted()) {
          work.live.finish(work.range)
          return job.attempt
        }
        if (isPausedEnd(state.end) && isHeld(deps.workDir, work.asker)) throw paused(`${work.stage.name}: ${pausedAt(work.request, state.end, await work.pending())}`)
        throw await judge(work, job, state.end)
    }
    told ??= endTold(job.path, over)
    await untilNextLook(work, current, told)
  }
}

/** Thrown by a range that stops watching because another one failed; the activity fails with that one's failure. */
export class Detached extends Error {
  override readonly name = 'Detached'
}

const submit = async (deps: Deps, work: RangeWork, { job, runner, placement }: Attempt, renew: () => Promise<void>): Promise<void> => {
  const request = await requestOf(deps, work, job, placement)
  await prepare(job, request)
  failpoint('request-written')
  await renew()
  try {
    await runner.submit(job, request)
  } catch (e) {
    if (!(e instanceof JobNotStarted)) throw e
    const end: EndRecord = { format: 'cpt-end/1', endClass: 'failed', type: 'JobEnded', message: e.message, exitCode: null, signal: null, progressTokens: 0, logTail: [], wallSeconds: 0 }
    const { type, next, failureClass } = classifyFailure({ end, log: [], told: null, placement })
    throw needsPerson(next === 'park' ? type : 'NeedsAttention', `${work.stage.name}: ${e.message}`, { stage: work.stage.name, fingerprint: work.fingerprint, attempts: job.attempt, endClass: 'failed', failureClass, logTail: [] })
  }
  failpoint('job-submitted')
}

/** Ends a job that stands still: first it writes where, then it goes; the mark makes its end a failure. */
const stopStuck = async (deps: Deps, work: RangeWork, { job, runner }: Attempt, how: string): Promise<void> => {
  deps.log.warn({ key: work.key, attempt: job.attempt }, `${how}: stopping the job`)
  await appendFile(join(job.path, 'log.jsonl'), `${how}: the stacks of its processes follow, then it is stopped\n`)
  await work.live.beating(() => runner.dumpStacks(job))
  await writeFile(join(job.path, stuckMark), '')
  await work.live.beating(() => runner.stop(job, stopGraceMs))
}

/** Waits for the next look, which comes early when the job's end is told; on cancellation stops the job (a person asked) or leaves it running (the worker goes). */
const untilNextLook = async (work: RangeWork, { job, runner }: Attempt, told: Promise<void>): Promise<void> => {
  if (work.detach.aborted) throw new Detached()
  const ctx = Context.current()
  try {
    await Promise.race([ctx.sleep(pollMs), told])
  } catch (e) {
    if (!(e instanceof CancelledFailure)) throw e
    const why = ctx.cancellationDetails
    if (why?.cancelRequested === true || why?.paused === true) {
      await work.live.beating(async () => {
        const { othersAsk } = await withdrawAsker(job, work.asker)
        if (!othersAsk) await runner.stop(job, stopGraceMs)
      })
    }
    throw e
  }
}

const prepare = async (job: JobFolder, request: JobRequest): Promise<void> => {
  await mkdir(job.path, { recursive: true })
  // two watchers may prepare the same attempt: each writes the file whole
  await replaceFile(join(job.path, 'request.json'), JSON.stringify(request))
}

const requestOf = async (deps: Deps, work: RangeWork, job: JobFolder, placement: Placement): Promise<JobRequest> => ({
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
  placement,
  leaseSeconds: (placement.runner === 'slurm' ? deps.config.slurm?.leaseSeconds : undefined) ?? deps.config.leaseSeconds,
})
