import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { home } from './home.mjs'

const filesUnder = (path) => {
  if (!existsSync(path)) return []
  if (!statSync(path).isDirectory()) return [path]
  return readdirSync(path).sort().flatMap((name) => filesUnder(join(path, name)))
}

/** A digest of files and folders of the checkout, by relative name and content. */
export const digestOf = (paths) => {
  const hash = createHash('sha256')
  for (const path of paths) for (const file of filesUnder(join(home, path))) hash.update(`${file.slice(home.length)}\0`).update(readFileSync(file)).update('\0')
  return hash.digest('hex')
}

/** Whether the folder was made from exactly these inputs. */
export const isStamped = (file, digest) => existsSync(file) && readFileSync(file, 'utf8') === digest

/** Written last, so that an interrupted step is done again. */
export const stamp = (file, digest) => writeFileSync(file, digest)
