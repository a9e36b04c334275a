import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { marksIn, type Marks } from './marks.ts'

const Written = z.object({ workflowId: z.string(), runId: z.string(), run: z.string(), startedAtMs: z.number(), fingerprints: z.array(z.string()).optional() })

/** A run that has a report, and what the report is about. */
export interface ReportedRun {
  workflowId: string
  runId: string
  run: string
  startedAtMs: number
  marks: Marks
}

/** Every report in the folder, newest first; a report that cannot be read is an error, since it may name what would be swept. */
export const reportedRuns = async (reportsDir: string): Promise<ReportedRun[]> => {
  const folders = (await readdir(reportsDir, { withFileTypes: true }).catch(ifMissing([]))).filter((e) => e.isDirectory())
  const found = await Promise.all(
    folders.map(async ({ name }) => {
      const text = await readFile(join(reportsDir, name, 'run.json'), 'utf8').catch(ifMissing(null))
      if (text === null) return []
      const { fingerprints, ...run } = Written.parse(JSON.parse(text))
      // reports of before the field say it on their page
      const page = fingerprints === undefined ? await readFile(join(reportsDir, name, 'index.html'), 'utf8').catch(ifMissing('')) : ''
      return [{ ...run, marks: marksIn(`${text}\n${page}`) }]
    }),
  )
  return found.flat().sort((a, b) => b.startedAtMs - a.startedAtMs)
}

const ifMissing =
  <T>(otherwise: T) =>
  (error: unknown): T => {
    if (error instanceof Error && (error as NodeJS.ErrnoException).code === 'ENOENT') return otherwise
    throw error
  }
