#!/usr/bin/env node
import { existsSync } from 'node:fs'

const program = new URL('../dist/cpt.js', import.meta.url)
if (existsSync(program)) await import(program.href)
else {
  process.stderr.write('cpt: cli/dist is not built yet. From the checkout, run `npm run bootstrap` (installs what is missing, then builds).\n')
  process.exitCode = 5
}
