import { readdir, readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { z } from 'zod'

/** What a job writes of its process: number, start time in clock ticks and boot tell it from a later one of that number. */
export const Started = z.object({ pid: z.int().positive(), startTicks: z.string(), bootId: z.string(), host: z.string(), oomKills: z.int().default(0) })
export type Started = z.infer<typeof Started>

const stat = async (pid: number): Promise<{ state: string; group: number; startTicks: string } | null> => {
  try {
    const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(')').at(-1)?.trim().split(' ') ?? []
    return { state: fields[0] ?? 'X', group: Number(fields[2]), startTicks: fields[19] ?? '' }
  } catch {
    return null
  }
}

const bootId = async (): Promise<string> => {
  try {
    return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
  } catch {
    return ''
  }
}

let own: Promise<Started> | null = null
/** This process as others can ask after it; asked once. */
export const thisProcess = (): Promise<Started> =>
  (own ??= (async () => ({ pid: process.pid, startTicks: (await stat(process.pid))?.startTicks ?? '', bootId: await bootId(), host: hostname(), oomKills: 0 }))())

/** Whether the very process still runs; a zombie does not. */
export const isAlive = async (started: Started): Promise<boolean> => {
  if (started.startTicks === '') return exists(started.pid) // a system without /proc
  if (started.bootId !== (await bootId())) return false
  const now = await stat(started.pid)
  return now !== null && now.startTicks === started.startTicks && now.state !== 'Z' && now.state !== 'X'
}

const exists = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (e) {
    return (e as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** Living members of the very job's group: none once its number belongs to another process or the machine has booted. */
export const jobMembers = async (started: Started): Promise<number[]> => {
  if (started.startTicks !== '') {
    if (started.bootId !== (await bootId())) return []
    // the number of a group is not given out again while the group has members
    const leader = await stat(started.pid)
    if (leader !== null && leader.startTicks !== started.startTicks) return []
  }
  return await groupMembers(started.pid)
}

/** Living members of a process group, zombies left out. */
export const groupMembers = async (group: number): Promise<number[]> => {
  const entries = await readdir('/proc').catch(() => [])
  const pids = entries.filter((e) => /^\d+$/.test(e)).map(Number)
  const stats = await Promise.all(pids.map(async (pid) => ({ pid, stat: await stat(pid) })))
  return stats.filter(({ stat }) => stat !== null && stat.group === group && stat.state !== 'Z' && stat.state !== 'X').map(({ pid }) => pid)
}

/** Living processes whose environment has this entry: what a job has started carries its mark into other sessions. */
export const marked = async (entry: string): Promise<number[]> => {
  const pids = (await readdir('/proc').catch(() => [])).filter((e) => /^\d+$/.test(e)).map(Number)
  const found = await Promise.all(
    pids.map(async (pid) => {
      const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')
      if (!environment.split('\0').includes(entry)) return []
      const now = await stat(pid)
      return now === null || now.state === 'Z' || now.state === 'X' ? [] : [pid]
    }),
  )
  return found.flat()
}

/** Whether a process was halted by SIGSTOP or the like. */
export const isHalted = async (pid: number): Promise<boolean> => ['T', 't'].includes((await stat(pid))?.state ?? '')

/** How many processes the kernel has ended for lack of memory since boot; 0 where it does not say. */
export const oomKills = async (): Promise<number> => Number(/^oom_kill (\d+)$/m.exec(await readFile('/proc/vmstat', 'utf8').catch(() => ''))?.[1] ?? 0)

/** Sends a signal to every member of a group; a group that is gone is no error. */
export const signalGroup = (group: number, signal: NodeJS.Signals): void => signalProcess(-group, signal)

export const signalProcess = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(pid, signal)
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code !== 'ESRCH') throw e
  }
}
