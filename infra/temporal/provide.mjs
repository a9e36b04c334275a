import { chmodSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { waitForLock } from '../bootstrap/file-lock.mjs'
import { cacheDir } from '../bootstrap/home.mjs'
import { SetupError, main, say as sayOnStderr, slowStep } from '../bootstrap/progress.mjs'
import { ask } from '../bootstrap/run-command.mjs'
import { downloadTemporal } from './download.mjs'
import { buildTemporal, goVersion } from './go-build.mjs'
import { cliVersion, judgeVersion, oldestCli } from './versions.mjs'

const cached = join(cacheDir, 'temporal', cliVersion, 'temporal')
const installYourself = 'Install the Temporal CLI (https://docs.temporal.io/cli) so that `temporal` is on PATH, or install Go (https://go.dev/dl) and run the command again.'

/** The Temporal CLI of PATH or of our cache as {path, version, from}, or null; does not fetch anything. */
export const findTemporal = async () => {
  for (const [path, from] of [['temporal', 'PATH'], [cached, 'cache']]) {
    const { text, isGood } = judgeVersion((await ask(path, ['--version'])) ?? '')
    if (isGood) return { path, version: text, from }
  }
  return null
}

const mustWork = async (path) => {
  chmodSync(path, 0o755)
  const { isGood, text } = judgeVersion((await ask(path, ['--version'])) ?? '')
  if (!isGood) throw new SetupError(`the Temporal CLI that was made does not run (${text || 'no answer'})`, installYourself)
}

const fetchOrBuild = async (folder, say) => {
  try {
    return await slowStep(`official download of the Temporal CLI ${cliVersion}`, () => downloadTemporal(folder, say))
  } catch (error) {
    say(`  not downloaded: ${error.cause?.message ?? error.message}`)
  }
  const go = await goVersion()
  if (go === null) throw new SetupError(`No Temporal CLI ${oldestCli.join('.')} or newer on PATH, the download failed, and Go is not installed to build it`, installYourself)
  return slowStep(`Temporal CLI ${cliVersion} from its Go modules (Go ${go}, 4 to 6 minutes on two cores, once)`, () => buildTemporal(folder))
}

/** The Temporal CLI: of PATH, else cached, else the official download, else built with Go; made once for all checkouts. */
export const provideTemporal = async ({ say = sayOnStderr } = {}) => {
  const found = await findTemporal()
  if (found !== null) {
    say(`✓ Temporal CLI: ${found.version}, from ${found.from === 'PATH' ? 'PATH' : found.path}, reused`)
    return found
  }
  const lock = await waitForLock(join(cacheDir, 'temporal', `${cliVersion}.lock`), 'the Temporal CLI', say)
  // the lock is ours, so what lies there was left by a process that was killed
  for (const name of readdirSync(join(cacheDir, 'temporal'))) if (name.startsWith('.making-')) rmSync(join(cacheDir, 'temporal', name), { recursive: true, force: true })
  const folder = mkdtempSync(join(cacheDir, 'temporal', '.making-'))
  try {
    const meanwhile = await findTemporal()
    if (meanwhile !== null) return meanwhile
    const made = await fetchOrBuild(folder, say)
    await mustWork(made)
    mkdirSync(dirname(cached), { recursive: true })
    renameSync(made, cached)
    return await findTemporal()
  } finally {
    rmSync(folder, { recursive: true, force: true })
    lock.release()
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href)
  await main(async () => {
    const { path } = await provideTemporal()
    process.stdout.write(`${path}\n`)
  })
