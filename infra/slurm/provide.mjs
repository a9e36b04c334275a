import { pathToFileURL } from 'node:url'
import { provideDebianPrograms } from '../bootstrap/debian-programs.mjs'
import { main, say as sayOnStderr } from '../bootstrap/progress.mjs'
import { ask } from '../bootstrap/run-command.mjs'

/** Programs of a single-machine Slurm with accounting, and the Debian packages that bring them (no service is needed of any). */
const programs = { munged: 'munge', slurmctld: 'slurmctld', slurmd: 'slurmd', sbatch: 'slurm-client', slurmdbd: 'slurmdbd', mariadbd: 'mariadb-server-core', 'mariadb-install-db': 'mariadb-server-core', mariadb: 'mariadb-client-core' }

/** Slurm for the tests: what is installed, else the distribution's packages where root and apt are there. Returns its version. */
export const provideSlurm = async ({ say = sayOnStderr } = {}) => {
  await provideDebianPrograms(programs, 'The Slurm tests run on a real Slurm', { say: () => undefined })
  const version = (await ask('sbatch', ['--version']))?.trim() ?? 'Slurm of unknown version'
  say(`✓ Slurm: ${version}`)
  return version
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main(() => provideSlurm())
