import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Beat, type EndRecord, SchedulerState } from '@cpt/contracts/job'
import { z } from 'zod'
import { putFileIfAbsent } from '../artifact-store/local-disk.ts'
import type { Config } from '../config.ts'
import { askForStacks } from './far-stacks.ts'
import { readEnd, readJson, writeEnd } from './job-files.ts'
import { JobNotStarted, type JobFolder, type JobRunner, type JobState } from './job-runner.ts'
import { addressOf, slurmCommand, type Row, type SlurmCommand } from './slurm-commands.ts'
import { forgottenJob, recentJob } from './slurm-history.ts'
import { slurmPoll, type Listing } from './slurm-poll.ts'
import { endedPredecessors } from './slurm-predecessors.ts'
import type { SlurmSettings } from './slurm-settings.ts'
import { lastWords, phaseOf, waitingReason } from './slurm-states.ts'
import { isOf, strayOf, submissionsOf, writeSubmission, type Submission } from './slurm-submissions.ts'
import { submitJobs, type Outcome, type Submittable } from './slurm-submit.ts'

export interface SlurmRunnerOptions {
  settings: SlurmSettings
  /** Reaches the cluster; a test may put something in between. */
  run: SlurmCommand
  python: string
  mlDir: string
  /** The whole environment of a job: nothing of the worker's own reaches it. */
  env: Record<string, string>
}

/** What a job of Slurm writes of itself; the scheduler's number tells which of two submissions won the start. */
const StartedBySlurm = z.object({ slurmJob: z.string().optional() })

/** A submission may take as long as the scheduler likes; whoever asked for it goes on watching meanwhile. */
const submitPatienceMs = 4_000
const stopPatienceMs = 300_000
const stacksPatienceMs = 10_000
/** How long a job may take to leave once its end is on record, before the attempt that waits for it has it cancelled. */
const leavingMs = 10_000

/** The runner of a worker's configuration; null where it names no cluster. Nodes have folders for temporary files of their own. */
export const configuredSlurm = ({ slurm, python, home, jobEnv }: Pick<Config, 'slurm' | 'python' | 'home' | 'jobEnv'>): JobRunner | null => {
  if (slurm === null) return null
  const env = Object.fromEntries(Object.entries(jobEnv).filter(([name]) => name !== 'TMPDIR'))
  return slurmRunner({ settings: slurm.settings, run: slurmCommand({ env: slurm.env, bin: slurm.settings.bin }), python: slurm.settings.python ?? python, mlDir: slurm.settings.mlDir ?? join(home, 'ml'), env })
}

/** Jobs on a Slurm cluster that shares a folder with this worker. What it promises is told in docs/slurm.md. */
export const slurmRunner = ({ settings, run, python, mlDir, env }: SlurmRunnerOptions): JobRunner => {
  const poll = slurmPoll(run, settings.pollSeconds * 1000)
  const pulses = new Map<string, { value: string; firstAt: number; movedAt: number | null }>()
  /** Since when, on this process's clock, something is as it is: a submission unanswered, a job unlisted, an end unseen. */
  const since = new Map<string, number>()
  const underWay = new Map<string, Promise<Outcome>>()
  /** Jobs that the scheduler does not take just now, until when that is believed. */
  const postponed = new Map<string, { why: string; until: number }>()
  const gathering = new Map<string, { jobs: Submittable[]; outcome: Promise<Outcome> }>()

  const milliseconds = (key: string): number => {
    const at = since.get(key) ?? performance.now()
    since.set(key, at)
    return performance.now() - at
  }

  /** The counter that a living job raises every second: moving, still for so many milliseconds, or not to be judged yet. */
  const pulseOf = async (job: JobFolder): Promise<{ isMoving: boolean; stillMs: number }> => {
    const value = await readFile(join(job.path, 'pulse'), 'utf8').catch(() => '')
    const now = performance.now()
    const seen = pulses.get(job.path)
    const pulse = seen?.value === value ? seen : { value, firstAt: now, movedAt: seen === undefined ? null : now }
    pulses.set(job.path, pulse)
    return { isMoving: pulse.movedAt !== null && now - pulse.movedAt < 10_000, stillMs: now - pulse.firstAt }
  }

  const readRunning = async (job: JobFolder): Promise<JobState> => ({ state: 'running', beat: await readJson(join(job.path, 'beat.json'), Beat) })

  /** Nobody can be asked, or nobody knows: a pulse that moves is proof of life all the same. */
  const withoutScheduler = async (job: JobFolder, isStarted: boolean, why: string): Promise<JobState> => {
    const { isMoving } = await pulseOf(job)
    return isStarted && isMoving ? await readRunning(job) : { state: 'unknown', why: `Slurm: ${why}` }
  }

  const look: JobRunner['look'] = async (job) => {
    const end = await readEnd(job)
    if (end !== null) return { state: 'ended', end: await withEvidence(job, end) }
    const started = await readJson(join(job.path, 'started.json'), StartedBySlurm)
    const submissions = await submissionsOf(job)
    if (started === null && !submissions.some(isOpen)) return unsubmitted(job)
    const pulse = await pulseOf(job)

    const listing = await poll.latest()
    if ('failed' in listing) return await withoutScheduler(job, started !== null, listing.failed)
    const facts = await poll.facts()
    if ('failed' in facts) return await withoutScheduler(job, started !== null, facts.failed)

    const row = await rowOf(job, submissions, started, listing)
    if (row !== null) {
      const phase = phaseOf(row.state)
      if (phase === 'waiting') {
        if (row.reason === 'Dependency') await cancelEnded(job, listing)
        return { state: 'waiting', reason: waitingReason(row.state, row.reason) }
      }
      if (phase === 'running') return await readRunning(job)
      // a loser of the start says nothing of the attempt
      const mine = started?.slurmJob === undefined || started.slurmJob === row.id
      if (mine) return await over(job, row)
    }
    if (underWay.has(job.path)) return { state: 'waiting', reason: 'Slurm: being submitted' }
    return started === null ? await unlisted(job, submissions, listing, 2_000 * facts.messageTimeoutSeconds) : await forgotten(job, started.slurmJob ?? null, submissions, facts.hasAccounting, pulse)
  }

  /** What holds this job up and has ended long ago is cancelled; the scheduler then learns that it is gone. */
  const cancelEnded = async (job: JobFolder, { rows }: Listing): Promise<void> => {
    const key = `${job.path} held up`
    if (milliseconds(key) < leavingMs) return
    since.delete(key)
    for (const ended of await endedPredecessors(job, rows)) await run('scancel', [addressOf(ended)])
  }

  const unsubmitted = (job: JobFolder): JobState => {
    if (underWay.has(job.path)) return { state: 'waiting', reason: 'Slurm: being submitted' }
    const wait = postponed.get(job.path)
    if (wait !== undefined && performance.now() < wait.until) return { state: 'waiting', reason: `Slurm: takes no job now: ${wait.why}` }
    return { state: 'absent' }
  }

  /** The job that stands for the attempt: the one that won the start, else one that may still win it, else one that is over. */
  const rowOf = async (job: JobFolder, submissions: Submission[], started: z.infer<typeof StartedBySlurm> | null, { rows }: Listing): Promise<Row | null> => {
    const mine: Row[] = []
    for (const submission of submissions) {
      const row = rows.find((r) => isOf(r, submission))
      if (row === undefined) continue
      mine.push(row)
      since.delete(`${job.path} ${submission.nonce}`)
      if (submission.state !== 'submitted' || submission.submitTime !== row.submitTime) await writeSubmission(job, { ...submission, state: 'submitted', jobId: row.id, submitTime: row.submitTime })
    }
    const winner = mine.find((r) => r.id === started?.slurmJob)
    return winner ?? mine.find((r) => phaseOf(r.state) === 'running') ?? mine.find((r) => phaseOf(r.state) === 'waiting') ?? mine[0] ?? null
  }

  /** The scheduler says it is over. Its end record may be on its way to this machine. */
  const over = async (job: JobFolder, row: Row): Promise<JobState> => {
    if (milliseconds(`${job.path} over`) < settings.visibleWithinSeconds * 1000) return { state: 'unknown', why: `Slurm: job ${addressOf(row)} is ${row.state}; its end record is not seen here yet` }
    const late = await readEnd(job)
    if (late !== null) return { state: 'ended', end: late }
    return { state: 'gone', end: lastWords((await recentJob(run, row)) ?? { job: addressOf(row), state: row.state, reason: row.reason, exitCode: '0:0', nodes: row.nodes === '' ? [] : [row.nodes] }) }
  }

  /**
   * Never started, and not listed: an answer that got lost before the job came to be, or a job that a crashed scheduler
   * forgot. When it stays so for 2 × MessageTimeout, the attempt may be submitted again; were the job to turn up, one of
   * the two would lose the start.
   */
  const unlisted = async (job: JobFolder, submissions: Submission[], { askedAt }: Listing, doubtMs: number): Promise<JobState> => {
    let lost = 0
    const open = submissions.filter(isOpen)
    for (const submission of open) {
      const key = `${job.path} ${submission.nonce}`
      const waited = milliseconds(key)
      if (waited < doubtMs || askedAt < (since.get(key) ?? 0) + doubtMs) continue
      await writeSubmission(job, { ...submission, state: 'lost' })
      lost += 1
    }
    return lost === open.length ? { state: 'absent' } : { state: 'unknown', why: 'Slurm: does not list the job; looking again before it is submitted anew' }
  }

  /** It was started, and the scheduler knows nothing of it any more. */
  const forgotten = async (job: JobFolder, slurmJob: string | null, submissions: Submission[], hasAccounting: boolean, pulse: { isMoving: boolean; stillMs: number }): Promise<JobState> => {
    const late = await readEnd(job)
    if (late !== null) return { state: 'ended', end: late }
    if (pulse.isMoving) return await readRunning(job)
    const number = slurmJob ?? submissions.find((s) => s.jobId !== null)?.jobId ?? '?'
    const known = hasAccounting && slurmJob !== null ? await forgottenJob(run, slurmJob, submissions) : null
    if (known !== null && phaseOf(known.state) === 'over' && pulse.stillMs > settings.visibleWithinSeconds * 1000) return { state: 'gone', end: lastWords(known) }
    const leftMs = settings.vanishedAfterSeconds * 1000 - pulse.stillMs
    if (leftMs > 0) return { state: 'unknown', why: `Slurm: job ${number} is not known any more; its pulse is watched for another ${Math.ceil(leftMs / 1000)} s` }
    return { state: 'gone', end: { endClass: 'vanished', exitCode: null, signal: null, message: `Slurm does not know job ${number} any more, and its pulse stood still for ${settings.vanishedAfterSeconds} s` } }
  }

  /** A death that only the batch script saw gets the scheduler's word added (memory, node, limit), as long as that is known. */
  const withEvidence = async (job: JobFolder, end: EndRecord): Promise<EndRecord> => {
    if (end.scheduler !== undefined || end.type !== 'JobEnded' || !['killed', 'failed'].includes(end.endClass)) return end
    const path = join(job.path, 'scheduler.json')
    const kept = await readJson(path, SchedulerState)
    if (kept !== null) return { ...end, scheduler: kept }
    const listing = await poll.latest()
    if ('failed' in listing) return end
    const started = await readJson(join(job.path, 'started.json'), StartedBySlurm)
    const row = await rowOf(job, await submissionsOf(job), started, listing)
    if (row === null || phaseOf(row.state) !== 'over') return end
    const scheduler = await recentJob(run, row)
    if (scheduler === null) return end
    await putFileIfAbsent(path, Buffer.from(JSON.stringify(scheduler)))
    return { ...end, scheduler }
  }

  const submitNow = async (jobs: Submittable[]): Promise<Outcome> => {
    const facts = await poll.facts()
    if ('failed' in facts) return { is: 'later', why: facts.failed }
    if (settings.cluster !== undefined && settings.cluster !== facts.cluster) throw new JobNotStarted(`CPT_SLURM names the cluster ${settings.cluster}, but ${facts.cluster} answers`)
    return await submitJobs({ run, settings, python, mlDir, env, cluster: facts.cluster }, jobs)
  }

  /** Ranges of one stage that come together go together; anything else goes at once. */
  const gather = async (one: Submittable): Promise<Outcome> => {
    if (one.request.units === null || one.request.attempt > 1 || settings.coalesceSeconds === 0) return await submitNow([one])
    const key = `${one.request.fingerprint} ${JSON.stringify(one.request.placement)}`
    const facts = await poll.facts()
    const open = gathering.get(key)
    if (open !== undefined && open.jobs.length < ('failed' in facts ? 1 : facts.maxArraySize - 1)) {
      open.jobs.push(one)
      return await open.outcome
    }
    const jobs = [one]
    const outcome = delay(settings.coalesceSeconds * 1000).then(() => {
      if (gathering.get(key)?.jobs === jobs) gathering.delete(key)
      return submitNow(jobs)
    })
    gathering.set(key, { jobs, outcome })
    return await outcome
  }

  const submit: JobRunner['submit'] = async (job, request) => {
    if (underWay.has(job.path) || (await readEnd(job)) !== null || (await readJson(join(job.path, 'started.json'), StartedBySlurm)) !== null) return
    if ((await submissionsOf(job)).some(isOpen)) return
    const listing = await poll.latest()
    const stray = 'failed' in listing ? null : strayOf(listing.rows, job, settings.cluster ?? '')
    if (stray !== null && !(await submissionsOf(job)).some((s) => s.nonce === stray.nonce)) return await writeSubmission(job, stray)
    since.delete(`${job.path} over`)
    const outcome = gather({ job, request }).finally(() => underWay.delete(job.path)).then((o) => {
      if (o.is === 'later') postponed.set(job.path, { why: o.why, until: performance.now() + 10_000 * settings.pollSeconds })
      return o
    })
    underWay.set(job.path, outcome)
    outcome.catch(() => undefined)
    const enough = new AbortController()
    try {
      await Promise.race([outcome, delay(submitPatienceMs, undefined, { signal: enough.signal })])
    } finally {
      enough.abort()
    }
  }

  const stop: JobRunner['stop'] = async (job, graceMs) => {
    await writeFile(join(job.path, 'stop'), String(graceMs))
    await underWay.get(job.path)?.catch(() => undefined)
    const begun = performance.now()
    let [termSent, killSent] = [false, false]
    let last: Row | null = null
    for (;;) {
      const submissions = await submissionsOf(job)
      const listing = await poll.fresh()
      const left = 'failed' in listing ? null : listing.rows.filter((r) => submissions.some((s) => isOf(r, s)) && phaseOf(r.state) !== 'over')
      // one whose answer was lost may turn up yet; it finds the stop file before it does anything
      if (left?.length === 0) break
      for (const row of left ?? []) {
        last = row
        const isWaiting = phaseOf(row.state) === 'waiting'
        if (isWaiting) await run('scancel', ['--state=PENDING', addressOf(row)])
        else if (performance.now() - begun > graceMs) {
          await run('scancel', ['--full', '--signal=KILL', addressOf(row)])
          if (killSent) await run('scancel', [addressOf(row)])
          killSent = true
        } else if (!termSent) {
          termSent = (await run('scancel', ['--full', '--signal=TERM', addressOf(row)])).code === 0
        }
      }
      if (performance.now() - begun > graceMs + stopPatienceMs) throw new Error(`slurm: ${job.path} is not gone: ${'failed' in listing ? listing.failed : (left ?? []).map((r) => `${addressOf(r)} ${r.state}`).join(', ')}`)
      await delay(Math.min(200, settings.pollSeconds * 1000))
    }
    if (last === null || (await readEnd(job)) !== null) return
    const wasWaiting = phaseOf(last.state) === 'waiting'
    await writeEnd(job, wasWaiting ? { endClass: 'stopped', message: 'stopped before it began', exitCode: null, signal: null } : { endClass: 'killed', message: 'it did not leave when told to, and was killed', exitCode: null, signal: 'SIGKILL' })
  }

  const dumpStacks: JobRunner['dumpStacks'] = (job) => askForStacks(job, stacksPatienceMs + settings.visibleWithinSeconds * 1000)

  return { name: 'slurm', submit, look, stop, dumpStacks }
}

const isOpen = (s: Submission): boolean => s.state === 'intended' || s.state === 'submitted'
