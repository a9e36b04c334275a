import { readFile } from 'node:fs/promises'
import type { Client, Connection, ConnectionOptions } from '@temporalio/client'
import type { Config } from '@cpt/activities/config'
import { CliError, messageOf } from './cli-error.ts'
import { namedServer } from './config.ts'
import { runningUp } from './up/up-record.ts'

export interface Server {
  address: string
  namespace: string
  taskQueue: string
  uiUrl: string | null
  reportsUrl: string | null
}

export interface Session extends Server {
  client: Client
  connection: Connection
  close(): Promise<void>
}

/** The server that the environment names, else the one of a running `cpt up`. */
export const findServer = (config: Config): Server => {
  const queue = config.queues.control
  if (namedServer() !== null) return { ...config.temporal, taskQueue: queue, reportsUrl: config.reportsUrl }
  const up = runningUp(config.stateDir)
  if (up === null) throw new CliError('unreachable', `nothing is running for ${config.stateDir}`, 'Start it with `npx cpt up` in another terminal, or name a Temporal server by TEMPORAL_ADDRESS.')
  return up
}

const optionsFor = async (config: Config, address: string): Promise<ConnectionOptions> => {
  const { tls, apiKey } = config.temporal
  const pair = tls === null ? null : { crt: await readFile(tls.certFile), key: await readFile(tls.keyFile) }
  return {
    address,
    connectTimeout: '5s',
    ...(pair !== null ? { tls: { clientCertPair: pair } } : apiKey !== null ? { tls: true } : {}),
    ...(apiKey !== null ? { apiKey } : {}),
  }
}

export const connect = async (config: Config, server: Server = findServer(config)): Promise<Session> => {
  const { Client, Connection } = await import('@temporalio/client')
  let connection: Connection
  try {
    connection = await Connection.connect(await optionsFor(config, server.address))
  } catch (error) {
    throw new CliError('unreachable', `no Temporal server answers at ${server.address}: ${messageOf(error)}`, 'Is it running? `npx cpt up` starts one; TEMPORAL_ADDRESS names another.')
  }
  return { ...server, connection, client: new Client({ connection, namespace: server.namespace }), close: () => connection.close() }
}

/** Page of a workflow in the web UI. */
export const runPage = (server: Pick<Server, 'uiUrl' | 'namespace'>, workflowId: string, runId?: string): string | null => {
  if (server.uiUrl === null) return null
  const page = `${server.uiUrl}/namespaces/${server.namespace}/workflows/${encodeURIComponent(workflowId)}`
  return runId === undefined ? page : `${page}/${runId}/timeline`
}
