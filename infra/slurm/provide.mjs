import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { SetupError, main, say as sayOnStderr, slowStep } from '../bootstrap/progress.mjs'
import { ask, mustRun, runCommand } from '../bootstrap/run-command.mjs'

/** Programs of a single-machine Slurm with accounting, and the Debian packages that bring them (no service is needed of any). */
const programs = { munged: 'munge', slurmctld: 'slurmctld', slurmd: 'slurmd', sbatch: 'slurm-client', slurmdbd: 'slurmdbd', mariadbd: 'mariadb-server-core', 'mariadb-install-db': 'mariadb-server-core', mariadb: 'mariadb-client-core' }
const systemFolders = ['/usr/sbin', '/usr/bin', '/usr/local/sbin', '/usr/local/bin']

const isOnPath = (program) =>
  [...(process.env.PATH ?? '').split(delimiter), ...systemFolders].some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })

/** Debian packages that are missing here for the Slurm of the tests. */
export const missingPackages = () => [...new Set(Object.entries(programs).flatMap(([program, from]) => (isOnPath(program) ? [] : [from])))]

/** Slurm for the tests: what is installed, else the distribution's packages where root and apt are there. Returns its version. */
export const provideSlurm = async ({ say = sayOnStderr } = {}) => {
  const missing = missingPackages()
  if (missing.length > 0) {
    const fix = `As root on Debian or Ubuntu: apt-get install --no-install-recommends ${missing.join(' ')}`
    const isDebian = (await runCommand('apt-get', ['--version'], { quiet: true })).code === 0
    if (process.getuid?.() !== 0 || !isDebian) throw new SetupError(`The Slurm tests run on a real Slurm, and these packages are missing: ${missing.join(', ')}`, fix)
    await slowStep(`Slurm from the system packages (${missing.join(', ')})`, async () => {
      const env = { DEBIAN_FRONTEND: 'noninteractive' }
      const lock = ['-o', 'DPkg::Lock::Timeout=300', '-qq']
      await mustRun('apt-get', [...lock, 'update'], { quiet: true, env, fix })
      await mustRun('apt-get', [...lock, 'install', '-y', '--no-install-recommends', ...missing], { quiet: true, env, fix })
    })
    const still = missingPackages()
    if (still.length > 0) throw new SetupError(`installed, but not on PATH: ${still.join(', ')}`, fix)
  }
  const version = (await ask('sbatch', ['--version']))?.trim() ?? 'Slurm of unknown version'
  say(`✓ Slurm: ${version}`)
  return version
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main(() => provideSlurm())
