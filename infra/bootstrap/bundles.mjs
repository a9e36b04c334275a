import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { home } from './home.mjs'
import { say, slowStep } from './progress.mjs'
import { mustRun } from './run-command.mjs'
import { digestOf, isStamped, stamp } from './stamp.mjs'

const sources = ['contracts/src', 'workflows/src', 'activities/src', 'infra/temporal', 'infra/bootstrap', 'pnpm-lock.yaml']
const bundles = ['workers', 'cli']

const inputsOf = (name) => [...sources, `${name}/src`, `${name}/build.mjs`]

/** Bundles the worker and the CLI where their sources have changed: Node 20 runs no TypeScript. */
export const buildBundles = async () => {
  for (const name of bundles) {
    if (!existsSync(join(home, name, 'build.mjs'))) continue
    const stampFile = join(home, name, 'dist', '.cpt-built')
    const digest = digestOf(inputsOf(name))
    if (isStamped(stampFile, digest)) {
      say(`✓ ${name} bundle: sources unchanged, reused`)
      continue
    }
    await slowStep(`${name} bundle`, () => mustRun('node', [join(name, 'build.mjs')], { quiet: true, fix: `Run \`node ${name}/build.mjs\` to see the error by itself.` }))
    stamp(stampFile, digest)
  }
}
