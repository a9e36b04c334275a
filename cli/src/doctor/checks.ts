import { existsSync, mkdirSync, statfsSync } from 'node:fs'
import { bucketRoot } from '@cpt/activities/artifact-store/bucket-root'
import { openStore } from '@cpt/activities/artifact-store/open-store'
import { probePutIfAbsent } from '@cpt/activities/artifact-store/probe'
import type { Config } from '@cpt/activities/config'
import { clusterFacts, slurmCommand } from '@cpt/activities/job-runner/slurm-commands'
import { findChromium } from '../../../infra/bootstrap/chromium.mjs'
import { checkNode, findPython } from '../../../infra/bootstrap/interpreters.mjs'
import { isFree } from '../../../infra/bootstrap/free-ports.mjs'
import { findUv, installPython, provideUv, pythonIsInstalled } from '../../../infra/bootstrap/python-environment.mjs'
import { findTemporal, provideTemporal } from '../../../infra/temporal/provide.mjs'
import { messageOf } from '../cli-error.ts'
import { namedServer, workerProgram } from '../config.ts'
import { runningUp } from '../up/up-record.ts'

const leastFreeGigabytes = 2

/** One thing that has to be there: what was found, and how to get it when it is not. */
export interface Finding {
  what: string
  ok: boolean
  found: string
  fix: string
  /** Runs go without it. */
  optional?: boolean
  repair?: () => Promise<unknown>
}
export type Check = (config: Config) => Promise<Finding>

const good = (what: string, found: string): Finding => ({ what, ok: true, found, fix: '' })

const node: Check = () => {
  try {
    checkNode()
    return Promise.resolve(good('Node', process.versions.node))
  } catch (error) {
    return Promise.resolve({ what: 'Node', ok: false, found: messageOf(error), fix: 'install Node 20.19 or newer from https://nodejs.org' })
  }
}

const python: Check = async () => {
  try {
    const { path, version } = await findPython()
    return good('Python', `${version} (${path})`)
  } catch (error) {
    return { what: 'Python', ok: false, found: messageOf(error), fix: 'install Python 3.11, 3.12 or 3.13, e.g. `apt-get install python3 python3-venv`' }
  }
}

const uv: Check = async () => {
  const found = await findUv()
  return found !== null ? good('uv', `${found.version} (${found.path})`) : { what: 'uv', ok: false, found: 'not found', fix: '`cpt doctor --fix` installs it from PyPI', repair: provideUv }
}

const environment: Check = () => {
  const what = 'Python environment'
  if (pythonIsInstalled()) return Promise.resolve(good(what, 'ml/.venv is in step with ml/uv.lock'))
  return Promise.resolve({ what, ok: false, found: 'ml/.venv is missing or older than ml/uv.lock', fix: '`cpt doctor --fix` installs it (some 3 to 4 GB the first time)', repair: installPython })
}

const bundles: Check = (config) => {
  const file = workerProgram(config)
  return Promise.resolve(existsSync(file) ? good('worker bundle', file) : { what: 'worker bundle', ok: false, found: `no ${file}`, fix: 'run `npm run bootstrap`' })
}

const temporal: Check = async () => {
  if (namedServer() !== null) return good('Temporal CLI', 'not needed: TEMPORAL_ADDRESS names a server')
  const found = await findTemporal()
  return found !== null ? good('Temporal CLI', `${found.version} (${found.from === 'PATH' ? 'on PATH' : found.path})`) : { what: 'Temporal CLI', ok: false, found: 'none, or too old', fix: '`cpt doctor --fix` downloads it, or builds it where Go is installed', repair: provideTemporal }
}

const disk: Check = (config) => {
  mkdirSync(config.stateDir, { recursive: true })
  const { bavail, bsize } = statfsSync(config.stateDir)
  const free = (bavail * bsize) / 1e9
  const found = `${free.toFixed(1)} GB free at ${config.stateDir}`
  return Promise.resolve(free >= leastFreeGigabytes ? good('disk', found) : { what: 'disk', ok: false, found, fix: `free at least ${leastFreeGigabytes} GB, or put CPT_STATE on another disk` })
}

/** Commits rest on creating a key only if it is absent: tried on the store itself. */
const store: Check = async (config) => {
  const opened = openStore(config)
  const where = config.s3 === null ? 'put the store on a local or shared POSIX file system that you can write and that knows hard links (CPT_STORE)' : 'use a bucket that you can write, of a server that knows conditional puts (If-None-Match: *), see CPT_STORE and CPT_S3_ENDPOINT'
  try {
    const wrong = await probePutIfAbsent(opened)
    return wrong === null ? good('store', `${opened.place} creates keys only if absent`) : { what: 'store', ok: false, found: `${opened.place} ${wrong}`, fix: where }
  } catch (error) {
    return { what: 'store', ok: false, found: messageOf(error).replace(/^store: /, ''), fix: where }
  }
}

/** Roots that are buckets: whether these credentials may list what lies there. */
const buckets: Check = async (config) => {
  const what = 'source buckets'
  const all = Object.entries(config.buckets)
  if (all.length === 0) return { ...good(what, 'none (CPT_ROOTS names folders only)'), optional: true }
  const wrong = (await Promise.all(all.map(async ([name, place]) => [name, await bucketRoot(place, openStore(config)).probe()] as const))).filter(([, why]) => why !== null)
  if (wrong.length === 0) return good(what, `${all.map(([name]) => `${name} (${config.roots[name] ?? ''})`).join(', ')} can be listed`)
  return { what, ok: false, found: wrong.map(([name, why]) => `${name}: ${why ?? ''}`).join('; '), fix: 'correct CPT_ROOTS, CPT_S3_ENDPOINT or the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), or ask for the right to list and read' }
}

const ports: Check = async (config) => {
  if (runningUp(config.stateDir) !== null) return good('ports', 'cpt up is running')
  const taken = []
  for (const port of [7233, 8233, 8234]) if (!(await isFree(port))) taken.push(port)
  return good('ports', taken.length === 0 ? '7233, 8233 and 8234 are free' : `${taken.join(', ')} taken: cpt up takes other ones`)
}

const slurm: Check = async (config) => {
  const what = 'Slurm'
  if (config.slurm === null) return { ...good(what, 'not configured (CPT_SLURM): every job runs on this machine'), optional: true }
  const facts = await clusterFacts(slurmCommand({ env: config.slurm.env, bin: config.slurm.settings.bin }))
  if ('failed' in facts) return { what, ok: false, found: `does not answer: ${facts.failed}`, fix: 'run `scontrol ping` as the worker would; CPT_SLURM names slurm.conf (conf) and the folder of its programs (bin), see docs/slurm.md' }
  const { cluster } = config.slurm.settings
  if (cluster !== undefined && cluster !== facts.cluster) return { what, ok: false, found: `${facts.cluster} answers, but CPT_SLURM names ${cluster}`, fix: 'correct `cluster` or `conf` in CPT_SLURM' }
  return good(what, `${facts.cluster} answers, ${facts.hasAccounting ? 'with' : 'without'} accounting; pools ${Object.keys(config.slurm.settings.pools).join(', ')}`)
}

const browser: Check = () => {
  const found = findChromium()
  return Promise.resolve(found !== null ? good('browser', found) : { what: 'browser', ok: false, found: 'no Chromium or Chrome', fix: 'only browser tests need it: install one, or set CPT_CHROMIUM', optional: true })
}

export const checks: readonly Check[] = [node, python, uv, environment, bundles, temporal, disk, store, buckets, slurm, ports, browser]
