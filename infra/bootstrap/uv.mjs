// Runs uv with the given arguments, wherever it is: `node infra/bootstrap/uv.mjs run --frozen pytest`.
import { spawn } from 'node:child_process'
import { main } from './progress.mjs'
import { provideUv } from './python-environment.mjs'

await main(async () => {
  const { path } = await provideUv()
  const child = spawn(path, process.argv.slice(2), { stdio: 'inherit', env: { ...process.env, VIRTUAL_ENV: '' } })
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
  child.on('exit', (code) => (process.exitCode = code ?? 1))
})
