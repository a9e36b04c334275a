import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { EndRecord } from '@cpt/contracts/job'
import { putFileIfAbsent } from '../artifact-store/local-disk.ts'
import type { JobFolder, LastWords } from './job-runner.ts'

/** How the job says it ended; null while it has not. */
export const readEnd = (job: JobFolder): Promise<EndRecord | null> => readJson(join(job.path, 'end.json'), EndRecord)

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

/** What a file of a job says; null where it is missing, cut off or something else. */
export const readJson = async <T>(path: string, schema: { safeParse: (v: unknown) => { success: true; data: T } | { success: false } }): Promise<T | null> => {
  try {
    const parsed = schema.safeParse(JSON.parse(await readFile(path, 'utf8')))
    return parsed.success ? parsed.data : null
  } catch {
    return null
  }
}
