import { existsSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const checkoutAbove = (folder) => (existsSync(join(folder, 'pnpm-workspace.yaml')) || dirname(folder) === folder ? folder : checkoutAbove(dirname(folder)))

/** The checkout this file belongs to, also when it runs from a bundle. */
export const home = checkoutAbove(dirname(fileURLToPath(import.meta.url)))

/** Where tools are kept that several checkouts share. */
export const cacheDir = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'cpt')

export const readManifest = () => JSON.parse(readFileSync(join(home, 'package.json'), 'utf8'))

/** The environment of every child: workspace tools first, since turbo looks for pnpm on PATH. */
export const childEnvironment = () => ({ ...process.env, PATH: [join(home, 'node_modules', '.bin'), process.env.PATH].join(delimiter) })
