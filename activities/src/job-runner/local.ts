import { spawn, type ChildProcess } from 'node:child_process'
import { open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Beat, EndRecord, exitClass } from '@cpt/contracts/job'
import { putFileIfAbsent } from '../artifact-store/local-disk.ts'
import { groupMembers, isAlive, jobMembers, signalGroup, Started } from './process.ts'
import type { WarmParent } from './warm-parent.ts'
import { JobNotStarted, type JobFolder, type JobRunner, type LastWords } from './job-runner.ts'

export interface LocalRunnerSettings {
  python: string
  /** Folder of the Python package. */
  mlDir: string
  /** The whole environment of a job: nothing of the worker's own reaches it. */
  env: Record<string, string>
  /** Forks jobs instead of starting Python for each; null: every job starts cold. */
  warm: WarmParent | null
}

/** Jobs as processes of this machine: a session and group of their own, so they outlive the worker that started them. */
export const localRunner = (settings: LocalRunnerSettings): JobRunner => {
  // only what this worker started itself; after a restart, started.json tells
  const children = new Map<string, ChildProcess>()

  const look: JobRunner['look'] = async (job) => {
    const end = await readJson(join(job.path, 'end.json'), EndRecord)
    if (end !== null) return { state: 'ended', end }
    const started = await readJson(join(job.path, 'started.json'), Started)
    const child = children.get(job.path)
    if (started === null) return child !== undefined && child.exitCode === null && child.signalCode === null ? { state: 'running', beat: null } : { state: 'absent' }
    if (await isAlive(started)) return { state: 'running', beat: await readJson(join(job.path, 'beat.json'), Beat) }
    // it may have written its end record between the two looks
    const late = await readJson(join(job.path, 'end.json'), EndRecord)
    return late === null ? { state: 'gone', end: { endClass: 'killed', message: 'the process is gone and left no end record', exitCode: null, signal: null } } : { state: 'ended', end: late }
  }

  return {
    name: 'local',
    look,
    async submit(job, request) {
      if (settings.warm !== null && (await settings.warm.fork(request.stage, job.path)) !== null) return
      const log = await open(join(job.path, 'log.jsonl'), 'a')
      try {
        const args = ['-m', 'cpt_ml', request.stage, '--request', join(job.path, 'request.json'), '--result', join(job.path, 'result.json')]
        const child = spawn(settings.python, args, { cwd: settings.mlDir, env: settings.env, detached: true, stdio: ['ignore', log.fd, log.fd] })
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
      await writeFile(join(job.path, 'stop'), '')
      if (group === undefined) return
      const left = async (): Promise<boolean> => (started === null ? await groupMembers(group) : await jobMembers(started)).length > 0
      if (!(await left())) return
      signalGroup(group, 'SIGTERM')
      const deadline = performance.now() + graceMs
      while (await left()) {
        if (performance.now() > deadline) signalGroup(group, 'SIGKILL')
        await delay(50)
      }
    },
  }
}

/** For a job that ended without a word: what the system said of it becomes its end record. */
const recordExit = async (job: JobFolder, code: number | null, signal: NodeJS.Signals | null): Promise<void> => {
  const endClass = signal !== null ? 'killed' : (exitClass[code ?? 1] ?? 'failed')
  // another process of this attempt holds the start: this one has nothing to say about it
  if (endClass === 'superseded') return
  await writeEnd(job, { endClass, exitCode: code, signal, message: signal !== null ? `the process was ended by ${signal}` : `the process exited with code ${code}` })
}

/** Writes an end record on behalf of a job that is proven gone, with the tail of its log as evidence. */
export const writeEnd = async (job: JobFolder, last: LastWords): Promise<void> => {
  const end: EndRecord = { format: 'cpt-end/1', type: 'JobEnded', progressTokens: 0, logTail: await readLogTail(job), wallSeconds: 0, ...last }
  await putFileIfAbsent(join(job.path, 'end.json'), Buffer.from(JSON.stringify(end)))
}

/** The last lines of a job's log, control characters removed. */
export const readLogTail = async (job: JobFolder, lines = 12): Promise<string[]> => {
  const file = await open(join(job.path, 'log.jsonl'), 'r').catch(() => null)
  if (file === null) return []
  try {
    const { size } = await file.stat()
    const length = Math.min(size, 16_384)
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length)
     
    return buffer.toString('utf8').split('\n').filter((l) => l.trim() !== '').slice(-lines).map((l) => l.replace(/[\u0000-\u001f\u007f-\u009f]/g, ' ').slice(0, 400))
  } finally {
    await file.close()
  }
}

const readJson = async <T>(path: string, schema: { safeParse: (v: unknown) => { success: true; data: T } | { success: false } }): Promise<T | null> => {
  try {
    const parsed = schema.safeParse(JSON.parse(await readFile(path, 'utf8')))
    return parsed.success ? parsed.data : null
  } catch {
    return null
  }
}
