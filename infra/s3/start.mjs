import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePorts } from '../bootstrap/free-ports.mjs'
import { daemon, systemPath } from '../slurm/daemon.mjs'
import { provideVersitygw } from './provide.mjs'

const credentials = { accessKeyId: 'cpt-tests', secretAccessKey: 'no-secret-at-all' }
const region = 'us-east-1'
const bucket = 'cpt'
const tries = 5

const answers = async (url) => {
  try {
    return (await fetch(url, { signal: AbortSignal.timeout(1_000) })).ok
  } catch {
    return false
  }
}

/**
 * Starts an S3 server on 127.0.0.1 over a temporary folder, with one empty bucket: {endpoint, bucket, region,
 * credentials, env, folder, kill, start, stop}. `env` is what CPT_STORE needs beside itself; `folder` is where the
 * objects lie as files; `stop` removes everything.
 */
export const startS3 = async ({ say = () => undefined } = {}) => {
  const { path: program } = await provideVersitygw({ say })
  const folder = mkdtempSync(join(tmpdir(), 'cpt-s3-'))
  mkdirSync(join(folder, 'objects', bucket), { recursive: true })
  // between finding a port and listening on it somebody else may take it
  for (let tried = 1; ; tried += 1) {
    const endpoint = `http://127.0.0.1:${(await freePorts(1))[0]}`
    const server = daemon({
      name: 'versitygw',
      program,
      args: ['--port', new URL(endpoint).host, '--region', region, '--health', '/health', '--keep-alive', '--quiet', 'posix', join(folder, 'objects')],
      env: { PATH: systemPath, ROOT_ACCESS_KEY: credentials.accessKeyId, ROOT_SECRET_KEY: credentials.secretAccessKey },
      logFile: join(folder, 'versitygw.log'),
      ready: () => answers(`${endpoint}/health`),
    })
    try {
      await server.start()
    } catch (error) {
      if (tried < tries) continue
      rmSync(folder, { recursive: true, force: true })
      throw error
    }
    return {
      endpoint, bucket, region, credentials,
      folder: join(folder, 'objects', bucket),
      env: { CPT_S3_ENDPOINT: endpoint, AWS_REGION: region, AWS_ACCESS_KEY_ID: credentials.accessKeyId, AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey },
      start: () => server.start(),
      kill: () => server.kill('SIGKILL'),
      stop: async () => {
        await server.kill('SIGTERM')
        rmSync(folder, { recursive: true, force: true })
      },
    }
  }
}
