import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { childEnvironment, home } from './home.mjs'
import { install } from './install.mjs'
import { main } from './progress.mjs'

await main(async () => {
  await install()
  const child = spawn(process.execPath, [join(home, 'cli', 'bin', 'cpt.js'), 'quickstart', ...process.argv.slice(2)], { stdio: 'inherit', env: childEnvironment() })
  // a terminal sends Ctrl-C to the child as well; it stops what it started and ends by itself
  process.on('SIGINT', () => undefined)
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  child.on('exit', (code) => (process.exitCode = code ?? 1))
})
