import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { home } from './home.mjs'
import { slowStep } from './progress.mjs'
import { provideUv } from './python-environment.mjs'
import { mustRun } from './run-command.mjs'
import { digestOf, isStamped, stamp } from './stamp.mjs'

const venv = join(home, '.cpt', 'bench-python')
const stampFile = join(venv, '.cpt-installed')
const packagesOf = (environment) => {
  const lib = join(environment, 'lib')
  return join(lib, readdirSync(lib).find((name) => name.startsWith('python')), 'site-packages')
}

/**
 * A Python that has the peers of the benchmarks (dependency group `bench`, locked) over the packages of ml/.venv, which has
 * to be installed: what the jobs use is the same files, so nothing is downloaded twice. Returns its path.
 */
export const provideBenchPython = async () => {
  const python = join(venv, 'bin', 'python')
  const jobs = join(home, 'ml', '.venv')
  const digest = digestOf(['ml/uv.lock', 'ml/pyproject.toml'])
  if (existsSync(python) && isStamped(stampFile, digest)) return python
  const uv = await provideUv()
  await slowStep('Python packages of the peers (dependency group bench, locked)', async () => {
    await mustRun(uv.path, ['sync', '--frozen', '--only-group', 'bench', '--python', join(jobs, 'bin', 'python')], {
      cwd: join(home, 'ml'),
      env: { VIRTUAL_ENV: '', UV_PROJECT_ENVIRONMENT: venv },
      fix: 'Is PyPI reachable and the disk not full? What is downloaded already is kept: run the command again.',
    })
    writeFileSync(join(packagesOf(venv), 'cpt-jobs.pth'), `import site; site.addsitedir(${JSON.stringify(packagesOf(jobs))})\n`)
  })
  stamp(stampFile, digest)
  return python
}
