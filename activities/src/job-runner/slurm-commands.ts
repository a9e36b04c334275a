import { execFile } from 'node:child_process'
import { join } from 'node:path'

/** How a program of Slurm ended; `code` is null when it was killed or never ran. */
export interface Answer {
  code: number | null
  stdout: string
  stderr: string
}

/** Runs `sbatch`, `squeue`, `sacct`, `scontrol` or `scancel`; the one way in which the runner reaches a cluster. */
export type SlurmCommand = (program: string, args: string[]) => Promise<Answer>

/** Longer than any sensible MessageTimeout (default 10 s, at most 100 s). */
const patienceMs = 150_000

/** The programs of this machine in an environment of their own (PATH and, where it is not in its usual place, SLURM_CONF). */
export const slurmCommand = ({ env, bin }: { env: Record<string, string>; bin?: string | undefined }): SlurmCommand => {
  const clean = { PATH: '/usr/bin:/bin', LC_ALL: 'C.UTF-8', ...env }
  return (program, args) =>
    new Promise((resolve) => {
      const path = bin === undefined ? program : join(bin, program)
      execFile(path, args, { env: clean, timeout: patienceMs, killSignal: 'SIGKILL', maxBuffer: 256 << 20 }, (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : null
        resolve({ code, stdout, stderr: stderr === '' && error !== null ? error.message : stderr })
      })
    })
}

/** One job, or one task of an array, as `squeue` lists it. */
export interface Row {
  /** SLURM_JOB_ID, and for a waiting task of an array the array's. */
  id: string
  array: string
  task: number | null
  state: string
  reason: string
  submitTime: string
  nodes: string
  name: string
  comment: string
}

/** What scancel and scontrol call it. */
export const addressOf = (row: Row): string => (row.task === null ? row.id : `${row.array}_${row.task}`)

/** All jobs of this user that the scheduler remembers, in one call; the comment comes last since it may hold anything. */
export const listJobs = async (run: SlurmCommand): Promise<Row[] | { failed: string }> => {
  const answer = await run('squeue', ['--me', '--array', '--states=all', '--noheader', '--format=%A|%F|%K|%T|%r|%V|%N|%j|%k'])
  if (answer.code !== 0) return { failed: wordsOf(answer) }
  return answer.stdout.split('\n').flatMap((line) => {
    const [id, array, task, state, reason, submitTime, nodes, name, ...comment] = line.split('|')
    if (id === undefined || name === undefined || state === undefined || !/^\d+$/.test(id)) return []
    return [{ id, array: array ?? id, task: task !== undefined && /^\d+$/.test(task) ? Number(task) : null, state, reason: reason ?? '', submitTime: submitTime ?? '', nodes: nodes ?? '', name, comment: comment.join('|') }]
  })
}

/** What a program said when it failed, in one line. */
export const wordsOf = ({ stderr, code }: Answer): string =>
  stderr.split('\n').map((l) => l.replace(/^\w+: (error: )?/, '').trim()).filter((l) => l !== '').slice(-3).join('; ').slice(0, 300) || (code === null ? 'no answer' : `exit code ${code}`)

/** What the cluster says of itself; null when it cannot be asked. */
export interface ClusterFacts {
  cluster: string
  messageTimeoutSeconds: number
  maxArraySize: number
  hasAccounting: boolean
}
export const clusterFacts = async (run: SlurmCommand): Promise<ClusterFacts | { failed: string }> => {
  const answer = await run('scontrol', ['show', 'config'])
  const value = (name: string): string => new RegExp(`^${name}\\s*=\\s*(.*?)\\s*$`, 'm').exec(answer.stdout)?.[1] ?? ''
  if (answer.code !== 0 || value('ClusterName') === '') return { failed: wordsOf(answer) }
  return {
    cluster: value('ClusterName'),
    messageTimeoutSeconds: Number.parseInt(value('MessageTimeout')) || 10,
    maxArraySize: Number.parseInt(value('MaxArraySize')) || 1,
    hasAccounting: value('AccountingStorageType').endsWith('slurmdbd'),
  }
}
