import { existsSync, mkdirSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { cacheDir, home } from './home.mjs'
import { findPython } from './interpreters.mjs'
import { SetupError, say, slowStep } from './progress.mjs'
import { ask, mustRun } from './run-command.mjs'
import { digestOf, isStamped, stamp } from './stamp.mjs'

const uvVersion = '0.13.9'
const oldestUv = [0, 8]
const venv = join(home, 'ml', '.venv')
const stampFile = join(venv, '.cpt-installed')
const inputs = ['ml/uv.lock', 'ml/pyproject.toml']
const ownUv = join(cacheDir, 'uv', uvVersion, 'bin', 'uv')
const installedGigabytes = 6

/** uv from PATH or our cache as {path, version, own}, or null. */
export const findUv = async () => {
  for (const path of ['uv', ownUv]) {
    const version = /uv (\d+)\.(\d+)\.(\d+)/.exec((await ask(path, ['--version'])) ?? '')
    if (version === null) continue
    const [major, minor] = [Number(version[1]), Number(version[2])]
    if (major > oldestUv[0] || minor >= oldestUv[1]) return { path, version: version.slice(1).join('.'), own: path === ownUv }
  }
  return null
}

/** uv, installed from PyPI into a private environment in the cache when there is none. */
export const provideUv = async () => {
  const found = await findUv()
  if (found !== null) return found
  const folder = join(cacheDir, 'uv', uvVersion)
  const { path: python } = await findPython()
  await slowStep(`uv ${uvVersion} from PyPI, into the cache`, async () => {
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    await mustRun(python, ['-m', 'venv', folder], { quiet: true, fix: 'Python lacks venv: on Debian and Ubuntu `apt-get install python3-venv`; or install uv yourself: https://docs.astral.sh/uv' })
    await mustRun(join(folder, 'bin', 'python'), ['-m', 'pip', 'install', '--quiet', `uv==${uvVersion}`], { quiet: true, fix: 'Is PyPI reachable? Otherwise install uv yourself: https://docs.astral.sh/uv' })
  })
  const installed = await findUv()
  if (installed === null) throw new SetupError(`uv was installed in ${folder} but does not run`, 'Remove that folder and try again, or install uv yourself: https://docs.astral.sh/uv')
  return installed
}

export const pythonIsInstalled = () => existsSync(join(venv, 'bin', 'python')) && isStamped(stampFile, digestOf(inputs))

/** Installs the locked Python packages into ml/.venv. */
export const installPython = async () => {
  if (pythonIsInstalled()) return say('✓ Python packages: up to date with ml/uv.lock, reused')
  const python = await findPython()
  const uv = await provideUv()
  const free = () => statfsSync(join(home, 'ml'))
  const freeGigabytes = () => (free().bavail * free().bsize) / 1e9
  const before = freeGigabytes()
  if (!existsSync(venv)) {
    say(`  The Python environment holds torch with its CUDA libraries: about 3 to 4 GB to download once (uv keeps them), ${installedGigabytes} GB on disk; ${before.toFixed(0)} GB are free.`)
    if (before < installedGigabytes + 1) throw new SetupError(`${before.toFixed(1)} GB are free where ml/ lies: expected at least ${installedGigabytes + 1}`, 'Free space, then run the command again.')
  }
  await slowStep(
    `Python packages (uv ${uv.version}, Python ${python.version}, locked)`,
    () =>
      mustRun(uv.path, ['sync', '--frozen', '--python', python.path], {
        cwd: join(home, 'ml'),
        env: { VIRTUAL_ENV: '' },
        fix: 'Is PyPI reachable and the disk not full? What is downloaded already is kept: run the command again.',
      }),
    () => {
      const written = before - freeGigabytes()
      return written > 0.1 ? `, some ${written.toFixed(1)} GB written` : ''
    },
  )
  stamp(stampFile, digestOf(inputs))
}
