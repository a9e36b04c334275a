import { readdir, readFile, readlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'

export interface JobProcess {
  pid: number
  /** Folder of the attempt it works for: its output goes to the log there. */
  folder: string
}

/** Processes of this machine whose output goes to a job's log under `workDir`: all jobs, forked or not, whoever started them. */
export const jobProcesses = async (workDir: string): Promise<JobProcess[]> => {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  const found = await Promise.all(pids.map(async (pid) => {
    const target = await readlink(`/proc/${pid}/fd/1`).catch(() => '')
    if (!target.startsWith(join(workDir, 'jobs', '/'))) return []
    const state = (await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') X')).split(') ').at(-1)?.[0] ?? 'X'
    return state === 'Z' || state === 'X' ? [] : [{ pid, folder: dirname(target) }]
  }))
  return found.flat()
}

/** Whether a process of this number is there and no zombie. */
export const isThere = async (pid: number): Promise<boolean> => {
  const state = (await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') X')).split(') ').at(-1)?.[0] ?? 'X'
  return state !== 'Z' && state !== 'X'
}
