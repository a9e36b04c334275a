import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { home } from './home.mjs'
import { SetupError, say, slowStep } from './progress.mjs'
import { provideUv } from './python-environment.mjs'
import { ask, mustRun } from './run-command.mjs'
import { digestOf, isStamped, stamp } from './stamp.mjs'

const venv = join(home, '.cpt', 'kenlm-python')
const stampFile = join(venv, '.cpt-installed')
const fix = 'It is compiled: are a C++ compiler and cmake there, and PyPI reachable? On Debian and Ubuntu `apt-get install g++ cmake zlib1g-dev`.'

/** The line of the lock that names kenlm and its digest, as pip reads it. */
const lockedKenlm = (exported) => {
  const found = /^kenlm==.*(?:\n +--hash=.*)+/m.exec(exported)
  if (found === null) throw new SetupError('ml/uv.lock names no kenlm', 'Run `uv lock` in ml/: the optional extra kenlm is in ml/pyproject.toml.')
  return found[0]
}

/**
 * A Python that has the optional extra `kenlm`, as locked, over the packages of ml/.venv, which has to be installed and stays as
 * it is: whether the extra is there changes what the tests see. Returns its path.
 */
export const provideKenlmPython = async () => {
  const python = join(venv, 'bin', 'python')
  const ml = join(home, 'ml')
  const jobs = join(ml, '.venv')
  const digest = digestOf(['ml/uv.lock', 'ml/pyproject.toml'])
  if (existsSync(python) && isStamped(stampFile, digest)) {
    say('✓ KenLM: up to date with ml/uv.lock, reused')
    return python
  }
  const { path: uv } = await provideUv()
  const exported = await ask(uv, ['export', '--quiet', '--frozen', '--extra', 'kenlm', '--no-emit-project', '--project', ml])
  await slowStep('KenLM (optional extra, locked), compiled', async () => {
    await mustRun(uv, ['venv', '--quiet', '--clear', '--python', join(jobs, 'bin', 'python'), venv], { fix })
    const requirements = join(venv, 'requirements.txt')
    writeFileSync(requirements, `${lockedKenlm(exported ?? '')}\n`)
    await mustRun(uv, ['pip', 'install', '--python', python, '--no-deps', '--require-hashes', '--requirement', requirements], { fix })
    writeFileSync(join(packagesOf(venv), 'cpt-jobs.pth'), `import site; site.addsitedir(${JSON.stringify(packagesOf(jobs))})\n`)
  })
  stamp(stampFile, digest)
  return python
}

const packagesOf = (environment) => {
  const lib = join(environment, 'lib')
  return join(lib, readdirSync(lib).find((name) => name.startsWith('python')), 'site-packages')
}
