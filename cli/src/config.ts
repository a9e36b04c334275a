import { join } from 'node:path'
import { userInfo } from 'node:os'
import { loadConfig, type Config } from '@cpt/activities/config'
import { CliError, messageOf } from './cli-error.ts'

/** The settings of this process, with a message instead of a stack where one is unusable. */
export const readConfig = (over: { stateDir?: string | undefined } = {}): Config => {
  try {
    return loadConfig(over.stateDir === undefined ? process.env : { ...process.env, CPT_STATE: over.stateDir })
  } catch (error) {
    throw new CliError('usage', messageOf(error), 'Correct or unset that environment variable.')
  }
}

/** Address of a server that the environment names; `cpt up` then starts none of its own. */
export const namedServer = (): string | null => process.env['TEMPORAL_ADDRESS'] ?? null

/** What `cpt up` hands to a process it starts: its own environment and these. */
export const environmentWith = (more: Record<string, string>): Record<string, string> => {
  const own = Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return { ...Object.fromEntries(own), ...more }
}

/** Whose name an operator's action carries. */
export const operator = (): string => {
  try {
    return userInfo().username
  } catch {
    return 'unknown'
  }
}

export const wantsColour = (): boolean => process.stdout.isTTY && process.env['NO_COLOR'] === undefined && process.env['TERM'] !== 'dumb'
export const workerProgram = (config: Config): string => join(config.home, 'workers', 'dist', 'main.js')
export const cliProgram = (config: Config): string => join(config.home, 'cli', 'bin', 'cpt.js')
