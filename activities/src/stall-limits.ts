import { join } from 'node:path'
import type { Beat } from '@cpt/contracts/job'
import { z } from 'zod'
import { readJson } from './job-runner/job-files.ts'
import type { JobFolder } from './job-runner/job-runner.ts'
import { replaceFile } from './replace-file.ts'

/** How often a phase of a job went on, and the longest time that it took to. */
const Pace = z.object({ advances: z.int().nonnegative(), longestMs: z.number().nonnegative() })
const Paces = z.record(z.string(), Pace)
export type Paces = z.infer<typeof Paces>

/** A phase that is known may stand still this many times its longest pause, and never less than the floor. */
const tolerance = 20
const floorMs = 120_000
const knownAfter = 5
const fileName = 'paces.json'

/** How long a job may stand still in a phase: what its normal time allows once that is known, else all that is given. */
export const stallLimitMs = (pace: Paces[string] | undefined, noProgressMs: number): number =>
  pace === undefined || pace.advances < knownAfter ? noProgressMs : Math.min(noProgressMs, Math.max(floorMs, tolerance * pace.longestMs))

/**
 * Sees whether a job goes on, by its beats. Each phase (load, train, save, validate …) has a limit of its own, learnt
 * from this job and, where `before` is given, from the attempts before it.
 */
export const stallWatch = (noProgressSeconds: number, before: Paces, nowMs: number) => {
  const paces: Paces = { ...before }
  const seen = { tokens: -1, done: -1, phase: '', atMs: nowMs }
  return {
    paces,
    /** Takes note of a beat; says how the job stands still too long, or null. */
    look(beat: Beat | null, atMs: number): string | null {
      const [tokens, done, phase] = [beat?.tokens ?? -1, beat?.done ?? -1, beat?.phase ?? '']
      if (tokens !== seen.tokens || done !== seen.done || phase !== seen.phase) {
        const { advances, longestMs } = paces[seen.phase] ?? { advances: 0, longestMs: 0 }
        paces[seen.phase] = { advances: advances + 1, longestMs: Math.max(longestMs, atMs - seen.atMs) }
        Object.assign(seen, { tokens, done, phase, atMs })
      }
      const limitMs = stallLimitMs(paces[phase], noProgressSeconds * 1000)
      const stoodMs = atMs - seen.atMs
      if (stoodMs <= limitMs) return null
      // were it only slow this time, the next attempt would end the same way: it gets what the placement gives
      paces[phase] = { advances: paces[phase]?.advances ?? 0, longestMs: Math.max(paces[phase]?.longestMs ?? 0, stoodMs) }
      return `no progress in phase ${phase === '' ? 'starting' : phase} for ${Math.round(stoodMs / 1000)} s, limit ${Math.round(limitMs / 1000)} s`
    },
    /** The job is not to blame for the time until now. */
    excuse(atMs: number): void {
      seen.atMs = atMs
    },
  }
}
export type StallWatch = ReturnType<typeof stallWatch>

/** Keeps what was learnt of a job beside it, for the next attempt; lost where the disk is full, and learnt again. */
export const keepPaces = (job: JobFolder, paces: Paces): Promise<void> => replaceFile(join(job.path, fileName), JSON.stringify(paces)).catch(() => undefined)

export const readPaces = async (job: JobFolder): Promise<Paces> => (await readJson(join(job.path, fileName), Paces)) ?? {}
