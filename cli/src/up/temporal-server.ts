import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Config } from '@cpt/activities/config'
import { searchAttributes } from '@cpt/contracts/ids'
import { provideTemporal } from '../../../infra/temporal/provide.mjs'
import { CliError, messageOf } from '../cli-error.ts'
import { environmentWith } from '../config.ts'
import { connect, type Server } from '../connect.ts'
import { register } from '../register.ts'
import type { Ports } from './ports.ts'
import type { ServiceSpec } from './supervise.ts'

const isReady = async (config: Config, server: Server): Promise<boolean> => {
  try {
    const session = await connect(config, server)
    await register(session.connection, server.namespace).finally(() => session.close())
    return true
  } catch {
    return false
  }
}

/** The development server on the state folder's database, bound to this machine alone. */
export const temporalServer = async (config: Config, server: Server, ports: Ports, say: (line: string) => void): Promise<ServiceSpec> => {
  const cli = await provideTemporal({ say }).catch((error: unknown) => {
    throw new CliError('missing', messageOf(error), error instanceof Error && 'fix' in error ? String(error.fix) : 'See `npx cpt doctor`.')
  })
  const host = '127.0.0.1'
  return {
    name: 'Temporal server',
    program: cli.path,
    args: [
      ...['server', 'start-dev', '--ip', host, '--port', String(ports.server), '--ui-ip', host, '--ui-port', String(ports.ui)],
      ...['--db-filename', join(config.stateDir, 'temporal.db'), '--namespace', server.namespace, '--log-level', 'warn', '--log-format', 'json', '--disable-config-file'],
      // these apply when the namespace is made, which spares the first start a wait; later ones are added by register()
      ...Object.entries(searchAttributes).flatMap(([name, type]) => ['--search-attribute', `${name}=${type}`]),
      ...['--dynamic-config-value', 'system.forceSearchAttributesCacheRefreshOnRead=true'],
    ],
    env: environmentWith({}),
    logFile: join(config.stateDir, 'logs', 'temporal.log'),
    ready: async (_lines, signal) => {
      while (!(await isReady(config, server))) await sleep(150, undefined, { signal })
    },
    readyMs: 60_000,
    graceMs: 15_000,
  }
}
