import { randomUUID } from 'node:crypto'
import { rename, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/**
 * Puts `data` in the place of whatever file lies at `path`: a reader sees the old one or the new one whole, however many
 * writers there are. Its folder is there. For status files; it is not durable, and no result depends on it.
 */
export const replaceFile = async (path: string, data: string, { mode }: { mode?: number } = {}): Promise<void> => {
  const draft = join(dirname(path), `.tmp-${randomUUID()}`)
  await writeFile(draft, data, { flag: 'wx', ...(mode === undefined ? {} : { mode }) })
  await rename(draft, path)
}
