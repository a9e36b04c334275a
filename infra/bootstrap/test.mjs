import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { provideVersitygw } from '../s3/provide.mjs'
import { provideSlurm } from '../slurm/provide.mjs'
import { provideTemporal } from '../temporal/provide.mjs'
import { buildBundles } from './bundles.mjs'
import { provideChromium } from './chromium.mjs'
import { countPytest, countVitest, failuresOfPytest, failuresOfVitest, sum } from './count-tests.mjs'
import { provideStrace } from './debian-programs.mjs'
import { home } from './home.mjs'
import { checkNode } from './interpreters.mjs'
import { provideKenlmPython } from './kenlm-environment.mjs'
import { SetupError, say } from './progress.mjs'
import { installPython, provideUv } from './python-environment.mjs'
import { runCommand } from './run-command.mjs'
import { installWorkspace } from './workspace.mjs'

const bin = (name) => join(home, 'node_modules', '.bin', name)
const reports = mkdtempSync(join(tmpdir(), 'cpt-test-'))
const results = []
const failures = []

/** Runs a step whatever came before, so that one run shows everything that is wrong. */
const step = async (name, work) => {
  say(`\n── ${name}`)
  const start = performance.now()
  let counts
  try {
    counts = await work()
  } catch (error) {
    failures.push({ name, why: (error instanceof SetupError ? `${error.message}\n${error.fix}` : String(error.stack)).split('\n') })
    say(failures.at(-1).why.join('\n  '))
    counts = { passed: 0, failed: 1, skipped: 0 }
  }
  results.push({ name, ...counts, seconds: (performance.now() - start) / 1000 })
}

const check = (name, program, args, cwd = home) =>
  step(name, async () => {
    const { code, tail } = await runCommand(program, args, { cwd, indent: `  ${name} │ ` })
    if (code !== 0) failures.push({ name, why: tail.slice(-20) })
    return { passed: 0, failed: code === 0 ? 0 : 1, skipped: 0 }
  })

const vitest = (project, env = {}) =>
  step(`vitest ${project}`, async () => {
    const file = join(reports, `${project}.json`)
    const args = ['run', '--project', project, '--reporter=default', '--reporter=json', `--outputFile.json=${file}`]
    const { code } = await runCommand(bin('vitest'), args, { env, indent: `  ${project} │ ` })
    failures.push(...failuresOfVitest(file))
    return countVitest(file, code)
  })

/** Begins now, is waited for later; a failure is reported by the step that needs it. */
const inBackground = (work) => {
  const promise = work()
  promise.catch(() => undefined)
  return promise
}

const ready = (name, promise) => step(name, async () => (await promise, { passed: 0, failed: 0, skipped: 0 }))

const runAll = async () => {
  checkNode()
  await installWorkspace()
  const python = inBackground(installPython)
  const temporal = inBackground(provideTemporal)
  const browser = inBackground(provideChromium)
  const s3 = inBackground(provideVersitygw)
  const strace = inBackground(provideStrace)

  // neither fills two cores: beside each other they take half as long
  await Promise.all([checkTypeScript(python), checkPython(python, s3, strace)])
  await ready('bundles', buildBundles())
  await ready('Temporal CLI', temporal)
  await vitest('replay')
  await vitest('e2e')
  await vitest('kill')
  await vitest('chaos')
  await ready('browser', browser)
  await vitest('browser', { CPT_CHROMIUM: await browser.catch(() => '') })
}

const checkTypeScript = async (python) => {
  await check('eslint', bin('eslint'), ['.'])
  await check('types (TypeScript)', bin('turbo'), ['run', 'typecheck', '--filter=!@cpt/ml', '--ui=stream'])
  await python.catch(() => undefined) // some start jobs; that there is none is told by its own step
  await vitest('unit')
}

const checkPython = async (python, s3, strace) => {
  await ready('Python environment', python)
  const ml = join(home, 'ml')
  const { path: uv } = await provideUv()
  const inMl = (...args) => ['run', '--frozen', ...args]
  await check('ruff', uv, inMl('ruff', 'check', '.'), ml)
  await check('ruff format', uv, inMl('ruff', 'format', '--check', '.'), ml)
  await check('pyright', uv, inMl('pyright'), ml)
  await ready('S3 server', s3)
  await ready('strace', strace)
  await step('pytest', async () => {
    const file = join(reports, 'pytest.xml')
    const { code } = await runCommand(uv, inMl('pytest', `--junitxml=${file}`), { cwd: ml, indent: '  pytest │ ' })
    failures.push(...failuresOfPytest(file))
    return countPytest(file, code)
  })
}

/** `npm run test:clusters`: the suites on schedulers that are really started. */
const runClusters = async () => {
  checkNode()
  await installWorkspace()
  const temporal = inBackground(provideTemporal)
  await ready('Slurm', provideSlurm())
  await ready('Python environment', installPython())
  await ready('bundles', buildBundles())
  await ready('Temporal CLI', temporal)
  await vitest('clusters')
}

/** `npm run test:kenlm`: scoring by an n-gram model, in an environment that has the optional extra. */
const runKenlm = async () => {
  checkNode()
  await installWorkspace()
  await ready('Python environment', installPython())
  await step('pytest', async () => {
    const python = await provideKenlmPython()
    const file = join(reports, 'pytest.xml')
    const { code } = await runCommand(python, ['-m', 'pytest', `--junitxml=${file}`, 'tests/kenlm_cases.py'], { cwd: join(home, 'ml'), indent: '  pytest │ ' })
    failures.push(...failuresOfPytest(file))
    return countPytest(file, code)
  })
}

const suites = { clusters: runClusters, kenlm: runKenlm }

try {
  await (suites[process.argv[2]] ?? runAll)()
} catch (error) {
  say(error instanceof SetupError ? `✗ ${error.message}\n  ${error.fix}` : String(error.stack))
  results.push({ name: 'set-up', passed: 0, failed: 1, skipped: 0, seconds: 0 })
} finally {
  rmSync(reports, { recursive: true, force: true })
}

say('')
for (const r of results) say(`${r.failed + r.skipped === 0 ? '✓' : '✗'} ${r.name.padEnd(22)} ${String(r.passed).padStart(5)} passed ${String(r.failed).padStart(3)} failed ${String(r.skipped).padStart(3)} skipped ${r.seconds.toFixed(0).padStart(5)} s`)
// told again at the end, where one looks, and in a form that .ci/run finds
for (const { name, why } of failures) say([`✗ ${name.replace(`${home}/`, '')}`, ...why.map((line) => `  │ ${line}`)].join('\n'))
const total = sum(results)
// a skipped test proves nothing, so it does not pass either
process.exitCode = total.failed + total.skipped === 0 && total.passed > 0 ? 0 : 1
process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`)
