import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { SetupError, say as sayOnStderr, slowStep } from './progress.mjs'
import { mustRun, runCommand } from './run-command.mjs'

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

/** Of `programs` ({program: Debian package}), the packages whose programs are missing here. */
export const missingPackages = (programs) => [...new Set(Object.entries(programs).flatMap(([program, from]) => (isOnPath(program) ? [] : [from])))]

/** Installs what is missing of `programs` where root and apt are there; else a SetupError says what to install for `purpose`. */
export const provideDebianPrograms = async (programs, purpose, { say = sayOnStderr } = {}) => {
  const missing = missingPackages(programs)
  if (missing.length === 0) return say(`✓ ${Object.keys(programs).join(', ')}: installed`)
  const fix = `As root on Debian or Ubuntu: apt-get install --no-install-recommends ${missing.join(' ')}`
  const isDebian = (await runCommand('apt-get', ['--version'], { quiet: true })).code === 0
  if (process.getuid?.() !== 0 || !isDebian) throw new SetupError(`${purpose}, and these packages are missing: ${missing.join(', ')}`, fix)
  await slowStep(`system packages (${missing.join(', ')})`, async () => {
    const env = { DEBIAN_FRONTEND: 'noninteractive' }
    const lock = ['-o', 'DPkg::Lock::Timeout=300', '-qq']
    await mustRun('apt-get', [...lock, 'update'], { quiet: true, env, fix })
    await mustRun('apt-get', [...lock, 'install', '-y', '--no-install-recommends', ...missing], { quiet: true, env, fix })
  })
  const still = missingPackages(programs)
  if (still.length > 0) throw new SetupError(`installed, but not on PATH: ${still.join(', ')}`, fix)
}

/** strace, with which tests end a process at each of its system calls. */
export const provideStrace = (options) => provideDebianPrograms({ strace: 'strace' }, 'The crash tests of the store run under strace', options)
