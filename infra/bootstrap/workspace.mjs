import { join } from 'node:path'
import { home, readManifest } from './home.mjs'
import { say, slowStep } from './progress.mjs'
import { mustRun } from './run-command.mjs'
import { digestOf, isStamped, stamp } from './stamp.mjs'

const stampFile = join(home, 'node_modules', '.cpt-installed')
const packages = ['contracts', 'workflows', 'activities', 'workers', 'cli', 'ml', 'test', 'infra']
const inputs = ['package.json', 'pnpm-workspace.yaml', 'pnpm-lock.yaml', ...packages.map((name) => `${name}/package.json`)]

export const workspaceIsInstalled = () => isStamped(stampFile, digestOf(inputs))

/** Installs the locked Node packages of all workspace packages, with the pnpm that package.json pins. */
export const installWorkspace = async () => {
  if (workspaceIsInstalled()) return say('✓ Node packages: up to date with pnpm-lock.yaml, reused')
  const pnpm = readManifest().packageManager
  await slowStep(`Node packages (${pnpm}, frozen lockfile)`, () =>
    mustRun('npx', ['--yes', pnpm, 'install', '--frozen-lockfile', '--reporter=append-only'], {
      fix: 'Is the npm registry reachable (`npm ping`)? If pnpm says that the lockfile is outdated, run `npx --yes ' + pnpm + ' install` and commit pnpm-lock.yaml.',
    }),
  )
  stamp(stampFile, digestOf(inputs))
}
