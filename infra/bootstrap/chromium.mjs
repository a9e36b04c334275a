import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { SetupError, slowStep } from './progress.mjs'
import { mustRun, runCommand } from './run-command.mjs'

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome']

const isExecutable = (path) => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** The browser of the browser tests, or null. */
export const findChromium = (env = process.env) => {
  if (env.CPT_CHROMIUM) return isExecutable(env.CPT_CHROMIUM) ? env.CPT_CHROMIUM : null
  const folders = (env.PATH ?? '').split(delimiter)
  const onPath = names.flatMap((name) => folders.map((folder) => join(folder, name)))
  return [...onPath, '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'].find(isExecutable) ?? null
}

/** Finds a browser, or installs one where that is a plain package of the system (root on Debian). */
export const provideChromium = async () => {
  const found = findChromium()
  if (found !== null) return found
  const fix = 'Install Chromium or Chrome, or set CPT_CHROMIUM to its path.'
  if (process.env.CPT_CHROMIUM) throw new SetupError(`CPT_CHROMIUM is ${process.env.CPT_CHROMIUM}: no executable there`, fix)
  const isDebian = (await runCommand('apt-get', ['--version'], { quiet: true })).code === 0
  if (process.getuid?.() !== 0 || !isDebian) throw new SetupError('The browser tests need Chromium, and none was found', fix)
  await slowStep('Chromium from the system packages', async () => {
    const env = { DEBIAN_FRONTEND: 'noninteractive' }
    await mustRun('apt-get', ['update', '-qq'], { quiet: true, env, fix })
    await mustRun('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'chromium'], { quiet: true, env, fix })
  })
  const installed = findChromium()
  if (installed === null) throw new SetupError('Chromium was installed but is not on PATH', fix)
  return installed
}
