import { mkdir, rename, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { draftName } from './artifact-store/drafts.ts'

/**
 * Puts `data` in the place of whatever file lies at `path`: a reader sees the old one or the new one whole, however many
 * writers there are. Its folder is there; the draft lies in `drafts` on the same file system, or beside it. For status
 * files; it is not durable, and no result depends on it.
 */
export const replaceFile = async (path: string, data: string, { mode, drafts = dirname(path) }: { mode?: number; drafts?: string } = {}): Promise<void> => {
  await mkdir(drafts, { recursive: true })
  const draft = join(drafts, await draftName())
  await writeFile(draft, data, { flag: 'wx', ...(mode === undefined ? {} : { mode }) })
  await rename(draft, path)
}
