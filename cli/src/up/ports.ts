import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { freePorts, isFree } from '../../../infra/bootstrap/free-ports.mjs'
import { CliError } from '../cli-error.ts'

const Ports = z.object({ server: z.int(), ui: z.int(), reports: z.int() })
export type Ports = z.infer<typeof Ports>
const customary: Ports = { server: 7233, ui: 8233, reports: 8234 }
const host = '127.0.0.1'

const remembered = (stateDir: string): Ports | null => {
  try {
    return Ports.parse(JSON.parse(readFileSync(join(stateDir, 'ports.json'), 'utf8')))
  } catch {
    return null
  }
}

/**
 * A port as given; else the one used before, so that bookmarks stay good; else (`preferCustomary`) the one people know;
 * else any free one.
 */
export const choosePorts = async (stateDir: string, given: Partial<Ports>, preferCustomary: boolean): Promise<Ports> => {
  const before = remembered(stateDir)
  const chosen: Partial<Ports> = {}
  const spare = await freePorts(3)
  for (const name of ['server', 'ui', 'reports'] as const) {
    const wanted = given[name]
    if (wanted !== undefined) {
      if (!(await isFree(wanted))) throw new CliError('conflict', `port ${wanted} on ${host} is taken, wanted for ${name}`, 'Give another one, or none to have a free one chosen.')
      chosen[name] = wanted
      continue
    }
    const candidates = [before?.[name], preferCustomary ? customary[name] : undefined]
    for (const port of candidates) if (chosen[name] === undefined && port !== undefined && !Object.values(chosen).includes(port) && (await isFree(port))) chosen[name] = port
    const other = spare.pop()
    if (chosen[name] === undefined && other !== undefined) chosen[name] = other
  }
  return Ports.parse(chosen)
}

export const rememberPorts = (stateDir: string, ports: Ports): void => writeFileSync(join(stateDir, 'ports.json'), JSON.stringify(ports))
