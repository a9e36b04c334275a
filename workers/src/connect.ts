import { readFile } from 'node:fs/promises'
import type { Config } from '@cpt/activities/config'

/** Options for both kinds of connection: plain for the embedded server, mTLS or API key for a cluster. */
export const connectionOptions = async ({ temporal }: Config) => ({
  address: temporal.address,
  ...(temporal.apiKey === null ? {} : { apiKey: temporal.apiKey }),
  ...(temporal.tls === null ? (temporal.apiKey === null ? {} : { tls: true }) : { tls: { clientCertPair: { crt: await readFile(temporal.tls.certFile), key: await readFile(temporal.tls.keyFile) } } }),
})
