import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** When a process started, in the system's own words, or null if there is no such process. A number alone is reused. */
export const startOf = (pid) => {
  try {
    if (process.platform !== 'linux') return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim() || null
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')
    return fields[0] === 'Z' ? null : fields[19]
  } catch {
    return null
  }
}

/** This or another process as {pid, start}; null if it is gone. */
export const identify = (pid = process.pid) => {
  const start = startOf(pid)
  return start === null ? null : { pid, start }
}

/** Whether exactly this process, not one that got its number later, still runs. */
export const isAlive = (identity) => startOf(identity.pid) === identity.start
