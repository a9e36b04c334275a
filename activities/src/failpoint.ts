import { readFileSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Side-effect boundaries of the worker at which a test may end it without warning; jobs have theirs in ml/cpt_ml/failpoint.py. */
export type Failpoint = 'attempt-claimed' | 'request-written' | 'job-submitted' | 'end-seen' | 'merge-written' | 'merge-committed'

let folder: string | null = null

/** Names the folder in which tests arm failpoints (CPT_FAILPOINTS); without one every failpoint is a comparison with null. */
export const openFailpoints = (at: string | null): void => {
  folder = at
}

/** Kills this process with SIGKILL where the file `<name>` lies in the folder; a number in it is counted down first. It fires once. */
export const failpoint = (name: Failpoint): void => {
  if (folder === null) return
  const path = join(folder, name)
  try {
    const left = Number(readFileSync(path, 'utf8')) - 1
    if (left > 0) return writeFileSync(path, String(left))
    unlinkSync(path)
  } catch {
    return // not armed, or another process was quicker
  }
  process.kill(process.pid, 'SIGKILL')
}
