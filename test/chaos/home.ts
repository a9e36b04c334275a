import { execFile } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

/** A change of one source file that plants a bug: each `from` stands there exactly once. */
export interface Patch {
  file: string
  edits: readonly (readonly [from: string, to: string])[]
}

const checkout = fileURLToPath(new URL('../../', import.meta.url))
const run = promisify(execFile)

/** The file with the patch applied; fails where the code has changed under the patch. */
export const patched = async (root: string, { file, edits }: Patch): Promise<string> => {
  let text = await readFile(join(root, file), 'utf8')
  for (const [from, to] of edits) {
    const times = text.split(from).length - 1
    if (times !== 1) throw new Error(`planted bug: ${JSON.stringify(from)} stands ${times} times in ${file}, expected once: bring the patch up to date`)
    text = text.replace(from, () => to)
  }
  return text
}

/** A copy of what a worker and its jobs run, with the patch applied and the worker built anew where it concerns it. */
export const makeHome = async (patch: Patch | null): Promise<{ home: string; remove: () => Promise<void> }> => {
  const home = await mkdtemp(join(tmpdir(), 'cpt-home-'))
  const copied = ['package.json', 'pnpm-workspace.yaml', 'tsconfig.base.json', 'contracts', 'workflows', 'activities', 'workers', 'ml/cpt_ml', 'ml/uv.lock', 'ml/pyproject.toml']
  // links of the packages to each other and to the store of dependencies are relative: in the copy they stay in the copy
  for (const name of copied) await cp(join(checkout, name), join(home, name), { recursive: true, verbatimSymlinks: true, filter: (source) => !source.endsWith('__pycache__') })
  for (const name of ['node_modules', 'samples', 'infra']) await symlink(join(checkout, name), join(home, name))
  if (patch !== null) {
    await writeFile(join(home, patch.file), await patched(home, patch))
    if (!patch.file.startsWith('ml/')) await run(process.execPath, [join(home, 'workers', 'build.mjs')])
  }
  return { home, remove: () => rm(home, { recursive: true, force: true }) }
}
