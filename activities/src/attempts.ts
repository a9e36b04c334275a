import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { Context } from '@temporalio/activity'
import type { ApplicationFailure } from '@temporalio/common'
import type { FailureEvidence } from '@cpt/contracts/failures'
import { JobRequest, type EndRecord, type Placement, type RunnerName } from '@cpt/contracts/job'
import { adaptedPlacement, type Adapted } from './adapted-placement.ts'
import { claimAttempt, claimsOf, jobFolder, type Claim } from './claims.ts'
import { classifyFailure, type Verdict } from './classify-failure.ts'
import type { Deps } from './deps.ts'
import { failpoint } from './failpoint.ts'
import type { Ending } from './failure-evidence.ts'
import type { JobFolder, JobRunner } from './job-runner/job-runner.ts'
import { readLogTail } from './job-runner/job-files.ts'
import { needsPerson, tryAgain } from './stage-failure.ts'
import type { RangeWork } from './range-work.ts'

/** Beside the end record of a job that was stopped because it stood still: such an end is a failure. */
export const stuckMark = 'stuck'
/** Failures in a row, without anything new committed, after which a person is asked. */
const budget = 3
/** Lines of a log that are read for its cause; a person is shown the last few. */
const linesForCause = 60

/** One attempt at a range: its folder, the runner it was claimed for, and where and with what it runs. */
export interface Attempt extends Adapted {
  job: JobFolder
  runner: JobRunner
}

/** An earlier attempt of this line since the last operator decision, and what its end meant. */
interface Past {
  claim: Claim
  ending: Ending
  verdict: Verdict
}

/**
 * The attempt to watch: the last claimed one unless it is over, else the next, claimed now; or the attempt that has
 * committed the work meanwhile. Throws when a person must decide: the last end asks for one, or the budget is spent.
 */
export const currentAttempt = async (deps: Deps, work: RangeWork): Promise<Attempt | { committedBy: number }> => {
  for (;;) {
    const claims = await claimsOf(deps.store, work.fingerprint, work.range)
    const number = claims.length
    const last = claims.at(-1)
    const past = await pastOf(deps, work, claims)
    if (last !== undefined) {
      const job = jobFolder(deps.workDir, work.fingerprint, work.range, number)
      const runner = runnerOf(deps, work, last.runner)
      const state = await runner.look(job)
      if (state.state !== 'ended') return { job, runner, ...adaptedPlacement(work, endingsOf(past)) }
      // a job commits before it ends: whoever looked for the commit too early must look again before claiming more work
      if (await work.isCommitted()) return { committedBy: number }
      // whoever saw this end may not have lived to say what it means
      const judged = past.at(-1)?.claim === last ? await judge(work, job, state.end) : null
      if (judged?.nonRetryable === true) throw judged
    }
    const progress = await work.progress()
    const failures = past.filter((p) => p.claim.progress === progress && p.verdict.counts)
    if (failures.length >= budget) {
      const job = jobFolder(deps.workDir, work.fingerprint, work.range, number)
      const lastWords = failures.at(-1)?.ending.end.message ?? ''
      throw needsPerson('NeedsAttention', `${work.stage.name}: ${failures.length} attempts in a row failed without committing anything new; the last: ${lastWords}`, await evidenceOf(work, job, 'failed', failures.at(-1)?.verdict))
    }
    const adapted = adaptedPlacement(work, endingsOf(past))
    const next = jobFolder(deps.workDir, work.fingerprint, work.range, number + 1)
    const claim: Claim = { workflow: work.asker, run: Context.current().info.workflowExecution?.runId ?? '', key: work.key, decision: work.decision, runner: work.placement.runner, host: hostname(), progress, at: new Date().toISOString() }
    if (!(await claimAttempt(deps.store, work.fingerprint, work.range, number + 1, claim))) continue
    failpoint('attempt-claimed')
    if (adapted.note !== null) deps.log.warn({ key: work.key, attempt: number + 1 }, adapted.note)
    return { job: next, runner: runnerOf(deps, work, work.placement.runner), ...adapted }
  }
}

/** What follows from an end: a failure that Temporal retries, or one that parks the stage. */
export const judge = async (work: RangeWork, job: JobFolder, end: EndRecord): Promise<ApplicationFailure> => {
  const ending = await endingOf(work, job, end)
  const verdict = classifyFailure(ending)
  const evidence = await evidenceOf(work, job, end.endClass, verdict)
  if (end.endClass === 'done') return needsPerson('StoreCorrupt', `${work.stage.name}: the job says it is done, but nothing is committed`, evidence)
  const what = `${work.stage.name}, attempt ${job.attempt}: ${end.message}`
  if (verdict.next === 'park') return needsPerson(verdict.type, what, evidence)
  if (verdict.next === 'retry') return tryAgain(what, evidence, verdict.type)
  const { note } = adaptedPlacement({ ...work, placement: ending.placement }, [ending])
  return note === null ? needsPerson(verdict.type, `${what}; there is no smaller micro-batch to try`, evidence) : tryAgain(`${what}; next ${note}`, evidence, verdict.type)
}

/** The runner of that name; parks where this worker does not know it. */
export const runnerOf = (deps: Pick<Deps, 'runners'>, work: RangeWork, name: RunnerName): JobRunner => {
  const runner = deps.runners[name]
  if (runner !== undefined) return runner
  throw needsPerson('BadRequest', `${work.stage.name}: placement.runner is ${name}, but this worker knows ${Object.keys(deps.runners).join(', ')}: configure it or patch the placement`, { stage: work.stage.name, fingerprint: work.fingerprint, attempts: 0, endClass: 'bad-request', logTail: [] })
}

const endingsOf = (past: Past[]): Ending[] => past.map((p) => p.ending)

/** The ended attempts that this line asked for since the last operator decision. */
const pastOf = async (deps: Deps, work: RangeWork, claims: Claim[]): Promise<Past[]> => {
  const past = await Promise.all(
    claims.map(async (claim, i): Promise<Past[]> => {
      if (claim.workflow !== work.asker || claim.decision !== work.decision) return []
      const job = jobFolder(deps.workDir, work.fingerprint, work.range, i + 1)
      const state = await runnerOf(deps, work, claim.runner).look(job)
      if (state.state !== 'ended') return []
      const ending = await endingOf(work, job, state.end)
      return [{ claim, ending, verdict: classifyFailure(ending) }]
    }),
  )
  return past.flat()
}

const endingOf = async (work: RangeWork, job: JobFolder, end: EndRecord): Promise<Ending> => ({
  end,
  log: await readLogTail(job, linesForCause),
  told: await toldTo(job),
  placement: await placementIn(job) ?? work.placement,
})

const toldTo = async (job: JobFolder): Promise<Ending['told']> => {
  if (existsSync(join(job.path, stuckMark))) return 'stuck'
  const stop = await readFile(join(job.path, 'stop'), 'utf8').catch(() => null)
  // a batch script passes a scheduler's time limit on by the same file
  return stop === null || stop.trim() === 'time-limit' ? null : 'stop'
}

/** With what the attempt ran: its request says so. */
const placementIn = async (job: JobFolder): Promise<Placement | undefined> => {
  const text = await readFile(join(job.path, 'request.json'), 'utf8').catch(() => 'null')
  return JobRequest.pick({ placement: true }).safeParse(pick(JSON.parse(text))).data?.placement
}
const pick = (value: unknown): unknown => (typeof value === 'object' && value !== null && 'placement' in value ? { placement: value.placement } : null)

const evidenceOf = async (work: RangeWork, job: JobFolder, endClass: string, verdict: Verdict | undefined): Promise<FailureEvidence> => ({
  stage: work.stage.name, fingerprint: work.fingerprint, attempts: job.attempt, endClass, logTail: await readLogTail(job),
  ...(verdict === undefined ? {} : { failureClass: verdict.failureClass, rule: verdict.rule }),
})
