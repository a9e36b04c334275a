import { randomUUID } from 'node:crypto'
import { appendFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Placement } from '@cpt/contracts/job'
import { z } from 'zod'
import { replaceFile } from '../replace-file.ts'
import { readJson } from './job-files.ts'
import type { JobFolder } from './job-runner.ts'

const Placed = z.object({ placement: Placement })

/**
 * Has every process of a job that no signal of this machine reaches write its stacks to the job's log: a thread of each
 * looks for the file `stacks` every second. Which process did not answer in time is told in the log.
 */
export const askForStacks = async (job: JobFolder, patienceMs: number): Promise<void> => {
  const { placement } = (await readJson(join(job.path, 'request.json'), Placed)) ?? { placement: { nodes: 1, processesPerNode: 1 } }
  const ranks = Array.from({ length: placement.nodes * placement.processesPerNode }, (_, rank) => rank)
  const word = randomUUID()
  await replaceFile(join(job.path, 'stacks'), word)
  const deadline = performance.now() + patienceMs
  for (;;) {
    const answers = await Promise.all(ranks.map((rank) => readFile(join(job.path, `stacks-${rank}`), 'utf8').catch(() => '')))
    const silent = ranks.filter((rank) => answers[rank] !== word)
    if (silent.length === 0) return
    if (performance.now() > deadline) {
      await appendFile(join(job.path, 'log.jsonl'), `rank ${silent.join(', ')} did not answer in ${Math.round(patienceMs / 1000)} s: halted, gone, or in a call that lets no other thread run\n`)
      return
    }
    await delay(100)
  }
}
