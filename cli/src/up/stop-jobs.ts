import { readFile, readdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Config } from '@cpt/activities/config'
import { groupMembers, isAlive, signalGroup, Started } from '@cpt/activities/job-runner/process'
import { stopWarmParents } from '@cpt/activities/job-runner/warm-parent'

const graceMs = 25_000
const deepest = 4

const startFiles = async (folder: string, depth = 0): Promise<string[]> => {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
  if (depth === deepest) {
    const names = entries.map((e) => e.name)
    return names.includes('started.json') && !names.includes('end.json') ? [join(folder, 'started.json')] : []
  }
  const below = await Promise.all(entries.filter((e) => e.isDirectory()).map((e) => startFiles(join(folder, e.name), depth + 1)))
  return below.flat()
}

const livingGroup = async (file: string): Promise<number | null> => {
  const parsed = Started.safeParse(JSON.parse(await readFile(file, 'utf8').catch(() => 'null')))
  return parsed.success && (await isAlive(parsed.data)) ? parsed.data.pid : null
}

/**
 * Asks the jobs of this place that still run to save and leave, ends the warm parents, and returns how many jobs there
 * were. Both outlive their worker on purpose, so whoever closes everything down has to stop them too; a later run goes
 * on from what they saved.
 */
export const stopJobs = async ({ workDir, stateDir }: Config): Promise<number> => {
  const stopped = await Promise.all(
    (await startFiles(join(workDir, 'jobs'))).map(async (file) => {
      const group = await livingGroup(file)
      if (group === null) return 0
      await writeFile(join(dirname(file), 'stop'), '')
      signalGroup(group, 'SIGTERM')
      const deadlineMs = performance.now() + graceMs
      while ((await groupMembers(group)).length > 0) {
        if (performance.now() > deadlineMs) signalGroup(group, 'SIGKILL')
        await sleep(50)
      }
      return 1
    }),
  )
  await stopWarmParents(join(stateDir, 'warm'))
  return stopped.reduce<number>((a, b) => a + b, 0)
}
