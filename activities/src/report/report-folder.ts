import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Deps } from '../deps.ts'
import { replaceFile } from '../replace-file.ts'

export type ReportPlace = Pick<Deps['config'], 'reportsDir' | 'reportsUrl'>

/** Workflow ids are free text: the folder is a slug to read and a hash to tell runs apart. */
export const folderOf = ({ workflowId, runId }: { workflowId: string; runId: string }): string => {
  const slug = workflowId.toLowerCase().replace(/[^a-z0-9]+/g, '-').slice(0, 40).replace(/^-+|-+$/g, '')
  return `${slug || 'run'}-${createHash('sha256').update(`${workflowId}\0${runId}`).digest('hex').slice(0, 10)}`
}

/** Puts a page and the summary that lists of runs show into the run's folder, and says where the page is. Safe to repeat. */
export const putReport = async ({ reportsDir, reportsUrl }: ReportPlace, folder: string, page: string, summary: object): Promise<{ path: string; url: string }> => {
  const dir = join(reportsDir, folder)
  await mkdir(dir, { recursive: true })
  const path = join(dir, 'index.html')
  await replaceFile(path, page)
  await replaceFile(join(dir, 'run.json'), JSON.stringify(summary))
  return { path, url: reportsUrl === null ? pathToFileURL(path).href : `${reportsUrl.replace(/\/$/, '')}/${folder}/index.html` }
}
