import { spawn, type ChildProcess } from 'node:child_process'
import { appendFile, open, stat, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Beat, exitClass } from '@cpt/contracts/job'
import { z } from 'zod'
import { distantJobs } from './distant-jobs.ts'
import { askForStacks } from './far-stacks.ts'
import { readEnd, readJson, writeEnd } from './job-files.ts'
import { groupMembers, isAlive, isHalted, jobMembers, marked, oomKills, signalProcess, Started } from './process.ts'
import type { WarmParent } from './warm-parent.ts'
import { JobNotStarted, type JobFolder, type JobRunner, type JobState } from './job-runner.ts'

export interface LocalRunnerSettings {
  python: string
  /** Folder of the Python package. */
  mlDir: string
  /** The whole environment of a job, but for the marks CPT_JOB and CPT_HOST: nothing of the worker's own reaches it. */
  env: Record<string, string>
  /** Forks jobs instead of starting Python for each; null: every job starts cold. */
  warm: WarmParent | null
  /** Name of this host among those that share the work folder. */
  host?: string
  /** How long after a lease has run out a silent job on another host is still waited for. */
  marginMs?: number
  /** How long a job on another host may take to tell where it stands: it looks every second, and a shared disk shows files late. */
  stacksPatienceMs?: number
}

/**
 * Jobs as processes of this machine: a session and group of their own, so they outlive the worker that started them.
 * Several hosts may share the work folder; a job of another host is known by its counters alone.
 */
export const localRunner = (settings: LocalRunnerSettings): JobRunner => {
  const host = settings.host ?? hostname()
  // only what this worker started itself; after a restart, started.json tells
  const children = new Map<string, ChildProcess>()
  const distant = distantJobs(settings.marginMs ?? 30_000)

  const look = async (job: JobFolder): Promise<JobState> => {
    const end = await readEnd(job)
    if (end !== null) {
      distant.forget(job)
      return { state: 'ended', end }
    }
    const started = await readJson(join(job.path, 'started.json'), Started)
    const child = children.get(job.path)
    if (started === null) return child !== undefined && child.exitCode === null && child.signalCode === null ? { state: 'running', beat: null } : { state: 'absent' }
    if (started.host !== host) return await lookFar(job, started)
    if (await isAlive(started)) return { state: 'running', beat: await beatOf(job) }
    await endTheRest(job, started)
    return (await lateEnd(job)) ?? { state: 'gone', end: { endClass: 'killed', message: `the process is gone and left no end record${await forMemory(started)}`, exitCode: null, signal: null } }
  }

  const lookFar = async (job: JobFolder, started: Started): Promise<JobState> => {
    const seen = await distant.look(job)
    if (seen.state === 'alive') return { state: 'running', beat: await beatOf(job) }
    const silence = `the job on host ${started.host} has given no sign of life for ${seen.seconds} s`
    if (seen.state === 'silent') return { state: 'unknown', why: silence, letLeaseRun: true }
    return (await lateEnd(job)) ?? { state: 'gone', end: { endClass: 'vanished', message: `${silence}, and its lease is over`, exitCode: null, signal: null } }
  }

  /** The mark that tells what a job has started, in whatever session: also what it carries into other groups. */
  const markOf = (job: JobFolder): string => `CPT_JOB=${job.path}`
  const membersOf = async (job: JobFolder, started: Started | null, group: number): Promise<number[]> =>
    [...new Set([...(started === null ? await groupMembers(group) : await jobMembers(started)), ...(await marked(markOf(job)))])]

  const endTheRest = async (job: JobFolder, started: Started): Promise<void> => {
    for (const pid of await membersOf(job, started, started.pid)) signalProcess(pid, 'SIGKILL')
  }

  /** For a job that ended without a word: what the system said of it becomes its end record. */
  const recordExit = async (job: JobFolder, code: number | null, signal: NodeJS.Signals | null): Promise<void> => {
    const endClass = signal !== null ? 'killed' : (exitClass[code ?? 1] ?? 'failed')
    // another process of this attempt holds the start: this one has nothing to say about it
    if (endClass === 'superseded') return
    const started = await readJson(join(job.path, 'started.json'), Started)
    if (started !== null && started.host === host) await endTheRest(job, started)
    const message = signal !== null ? `the process was ended by ${signal}${signal === 'SIGKILL' ? await forMemory(started) : ''}` : `the process exited with code ${code}`
    await writeEnd(job, { endClass, exitCode: code, signal, message })
  }

  return {
    name: 'local',
    look,
    async submit(job, request) {
      const { nodes } = request.placement
      if (nodes > 1) throw new JobNotStarted(`local: the placement asks for ${nodes} nodes, and this is one machine; place it on a cluster or patch the placement`)
      const env = { ...settings.env, CPT_JOB: job.path, CPT_HOST: host }
      if (settings.warm !== null && (await settings.warm.fork(request.stage, job.path, env)) !== null) return
      const log = await open(join(job.path, 'log.jsonl'), 'a')
      try {
        const args = ['-m', 'cpt_ml', request.stage, '--request', join(job.path, 'request.json'), '--result', join(job.path, 'result.json')]
        const child = spawn(settings.python, args, { cwd: settings.mlDir, env, detached: true, stdio: ['ignore', log.fd, log.fd] })
        await new Promise<void>((resolve, reject) => {
          child.once('spawn', resolve)
          child.once('error', (e) => { reject(new JobNotStarted(`local: cannot start ${settings.python}: ${e.message}; run cpt doctor --fix`)) })
        })
        children.set(job.path, child)
        child.once('exit', (code, signal) => {
          children.delete(job.path)
          // where this cannot be written, whoever looks next finds the job gone and meets the cause itself
          recordExit(job, code, signal).catch(() => undefined)
        })
        child.unref()
      } finally {
        await log.close()
      }
    },
    async stop(job, graceMs) {
      const started = await readJson(join(job.path, 'started.json'), Started)
      const group = started?.pid ?? children.get(job.path)?.pid
      await writeFile(join(job.path, 'stop'), String(graceMs))
      if (group === undefined) return
      // from afar: the job reads the file and ends itself when the grace is over
      if (started !== null && started.host !== host) {
        while (!['ended', 'gone'].includes((await look(job)).state)) await delay(200)
        return
      }
      let left = await membersOf(job, started, group)
      if (left.length === 0) return
      for (const pid of left) signalProcess(pid, 'SIGTERM')
      // one that is halted may save too
      for (const pid of left) signalProcess(pid, 'SIGCONT')
      const deadline = performance.now() + graceMs
      for (; left.length > 0; left = await membersOf(job, started, group)) {
        if (performance.now() > deadline) for (const pid of left) signalProcess(pid, 'SIGKILL')
        await delay(50)
      }
    },
    async dumpStacks(job) {
      const started = await readJson(join(job.path, 'started.json'), Started)
      if (started === null) return
      if (started.host !== host) return await askForStacks(job, settings.stacksPatienceMs ?? 20_000)
      if (!(await isAlive(started))) return
      const log = join(job.path, 'log.jsonl')
      const { pids } = (await readJson(join(job.path, 'ranks.json'), Ranks)) ?? { pids: [started.pid] }
      const living = await membersOf(job, started, started.pid)
      for (const [rank, pid] of pids.entries()) {
        if (!living.includes(pid)) continue
        const who = pids.length === 1 ? 'the process' : `rank ${rank} (process ${pid})`
        if (await isHalted(pid)) {
          await appendFile(log, `${who} is halted (SIGSTOP or a debugger): it has no stack to show\n`)
          continue
        }
        if (pids.length > 1) await appendFile(log, `${who} stands here:\n`)
        const before = await sizeOf(log)
        signalProcess(pid, 'SIGUSR1')
        await grown(log, before)
      }
    },
  }
}

const beatOf = (job: JobFolder): Promise<Beat | null> => readJson(join(job.path, 'beat.json'), Beat)

/** The end record that a job may have written between two looks. */
const lateEnd = async (job: JobFolder): Promise<JobState | null> => {
  const end = await readEnd(job)
  return end === null ? null : { state: 'ended', end }
}

/** What the kernel's count of processes ended for lack of memory says of the time since the job began. */
const forMemory = async (started: Started | null): Promise<string> => {
  const killed = started === null ? 0 : (await oomKills()) - started.oomKills
  return killed > 0 ? `; the kernel ended ${killed} process(es) for lack of memory meanwhile` : ''
}

/** `ranks.json` of a job of several processes on this machine, rank 0 first. */
const Ranks = z.object({ pids: z.array(z.int().positive()) })

/** Once something was added to a file and no more comes (stacks are written word by word), after two seconds at most. */
const grown = async (path: string, from: number): Promise<void> => {
  const deadline = performance.now() + 2_000
  for (let last = from; performance.now() < deadline;) {
    await delay(20)
    const now = await sizeOf(path)
    if (now > from && now === last) return
    last = now
  }
}

const sizeOf = (path: string): Promise<number> => stat(path).then((s) => s.size, () => 0)
