import { chmodSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { waitForLock } from '../bootstrap/file-lock.mjs'
import { cacheDir } from '../bootstrap/home.mjs'
import { SetupError, main, say as sayOnStderr, slowStep } from '../bootstrap/progress.mjs'
import { ask, mustRun } from '../bootstrap/run-command.mjs'
import { goVersion } from '../temporal/go-build.mjs'

/** The S3 server of the tests. Conditional puts that hold under concurrency came with 1.8. */
const version = '1.8.0'
const oldest = [1, 8, 0]
const made = join(cacheDir, 'versitygw', version, 'versitygw')
const installYourself = `Install versitygw ${version} or newer (https://github.com/versity/versitygw) so that it is on PATH, or install Go (https://go.dev/dl) and run the command again.`

const isNewEnough = (said) => {
  const found = /v?(\d+)\.(\d+)\.(\d+)/.exec(said)?.slice(1).map(Number)
  if (found === undefined) return false
  for (const [i, part] of oldest.entries()) if (found[i] !== part) return found[i] > part
  return true
}

/** versitygw of PATH, when it says that it is new enough, or of our cache; null where there is none. */
export const findVersitygw = async () => {
  const onPath = await ask('versitygw', ['--version'])
  if (onPath !== null && isNewEnough(onPath)) return { path: 'versitygw', from: 'PATH' }
  return (await ask(made, ['--version'])) === null ? null : { path: made, from: 'cache' }
}

const build = async (folder) => {
  const cache = join(folder, 'go-cache')
  const env = { GOBIN: folder, GOCACHE: cache, GOFLAGS: '-trimpath', CGO_ENABLED: '0', GOWORK: 'off' }
  try {
    await mustRun('go', ['install', '-ldflags', '-s -w', `github.com/versity/versitygw/cmd/versitygw@v${version}`], { cwd: folder, env, quiet: true, niceness: 10, fix: `Is the Go module proxy reachable? Otherwise: ${installYourself}` })
    return join(folder, 'versitygw')
  } finally {
    rmSync(cache, { recursive: true, force: true })
  }
}

/** The S3 server of the tests: of PATH, else cached, else built with Go; made once for all checkouts. */
export const provideVersitygw = async ({ say = sayOnStderr } = {}) => {
  const found = await findVersitygw()
  if (found !== null) {
    say(`✓ versitygw ${version}, from ${found.from === 'PATH' ? 'PATH' : found.path}, reused`)
    return found
  }
  const go = await goVersion()
  if (go === null) throw new SetupError(`No versitygw ${version} or newer on PATH, and Go is not installed to build it`, installYourself)
  const lock = await waitForLock(join(cacheDir, 'versitygw', `${version}.lock`), 'versitygw', say)
  // the lock is ours, so what lies there was left by a process that was killed
  for (const name of readdirSync(join(cacheDir, 'versitygw'))) if (name.startsWith('.making-')) rmSync(join(cacheDir, 'versitygw', name), { recursive: true, force: true })
  const folder = mkdtempSync(join(cacheDir, 'versitygw', '.making-'))
  try {
    const meanwhile = await findVersitygw()
    if (meanwhile !== null) return meanwhile
    const program = await slowStep(`versitygw ${version} from its Go modules (Go ${go}, some 2 minutes on two cores, once)`, () => build(folder))
    chmodSync(program, 0o755)
    mkdirSync(dirname(made), { recursive: true })
    renameSync(program, made)
    const built = await findVersitygw()
    if (built === null) throw new SetupError('the versitygw that was built does not run', installYourself)
    return built
  } finally {
    rmSync(folder, { recursive: true, force: true })
    lock.release()
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href)
  await main(async () => {
    const { path } = await provideVersitygw()
    process.stdout.write(`${path}\n`)
  })
