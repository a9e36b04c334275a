import { pathToFileURL } from 'node:url'
import { missingPackages, provideDebianPrograms } from '../bootstrap/debian-programs.mjs'
import { main, say as sayOnStderr } from '../bootstrap/progress.mjs'

/** Programs of a single-machine Slurm with accounting, and the Debian packages that bring them; no service of any is needed. */
const programs = { munged: 'munge', slurmctld: 'slurmctld', slurmd: 'slurmd', sbatch: 'slurm-client', slurmdbd: 'slurmdbd', mariadbd: 'mariadb-server-core', 'mariadb-install-db': 'mariadb-server-core', mariadb: 'mariadb-client-core' }

/** Debian packages that are missing here for the Slurm of the tests. */
export const missingSlurm = () => missingPackages(programs)

/** Slurm for the tests: what is installed, else the distribution's packages where root and apt are there. */
export const provideSlurm = async ({ say = sayOnStderr } = {}) => provideDebianPrograms(programs, 'The cluster tests run on a real Slurm', { say })

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main(() => provideSlurm())
