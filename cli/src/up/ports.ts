import { createServer } from 'node:net'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { CliError } from '../cli-error.ts'

const Ports = z.object({ server: z.int(), ui: z.int(), reports: z.int() })
export type Ports = z.infer<typeof Ports>
const customary: Ports = { server: 7233, ui: 8233, reports: 8234 }
const host = '127.0.0.1'

const listen = (port: number): Promise<number | null> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(null))
    server.listen(port, host, () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : null))
    })
  })

export const isFree = async (port: number): Promise<boolean> => (await listen(port)) !== null

const freePort = async (): Promise<number> => {
  const port = await listen(0)
  if (port === null) throw new CliError('missing', `no free port on ${host}`, 'Is the loopback interface up?')
  return port
}

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
  for (const name of ['server', 'ui', 'reports'] as const) {
    const wanted = given[name]
    if (wanted !== undefined) {
      if (!(await isFree(wanted))) throw new CliError('conflict', `port ${wanted} on ${host} is taken, wanted for ${name}`, 'Give another one, or none to have a free one chosen.')
      chosen[name] = wanted
      continue
    }
    const candidates = [before?.[name], preferCustomary ? customary[name] : undefined]
    for (const port of candidates) if (chosen[name] === undefined && port !== undefined && !Object.values(chosen).includes(port) && (await isFree(port))) chosen[name] = port
    chosen[name] ??= await freePort()
  }
  return Ports.parse(chosen)
}

export const rememberPorts = (stateDir: string, ports: Ports): void => writeFileSync(join(stateDir, 'ports.json'), JSON.stringify(ports))
