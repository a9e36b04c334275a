// Runs a TypeScript file of this repository with everything installed: `node infra/bootstrap/run.mjs test/bench/lifecycle.ts`.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { childEnvironment, home } from './home.mjs'
import { install } from './install.mjs'
import { SetupError, main } from './progress.mjs'

await main(async () => {
  const [file, ...args] = process.argv.slice(2)
  if (file === undefined) throw new SetupError('no file given', 'node infra/bootstrap/run.mjs <file.ts> [arguments]')
  await install()
  const tsx = join(home, 'node_modules', 'tsx', 'dist', 'cli.mjs')
  const child = spawn(process.execPath, [tsx, file, ...args], { stdio: 'inherit', cwd: home, env: childEnvironment() })
  process.on('SIGINT', () => undefined)
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  child.on('exit', (code) => (process.exitCode = code ?? 1))
})
