import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { mustRun } from '../bootstrap/run-command.mjs'
import { cliVersion } from './versions.mjs'

const connectSeconds = 8
const downloadSeconds = 600
const goArch = { x64: 'amd64', arm64: 'arm64' }

const sha256Of = async (file) => {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file), hash)
  return hash.digest('hex')
}

/** Answers within a few seconds or fails: behind a closed network the build is to start soon. */
const get = async (url, seconds) => {
  const controller = new AbortController()
  const timer = setTimeout(() => controller.abort(new Error(`no answer within ${connectSeconds} s`)), connectSeconds * 1000)
  try {
    const response = await fetch(url, { signal: AbortSignal.any([controller.signal, AbortSignal.timeout(seconds * 1000)]) })
    if (!response.ok || response.body === null) throw new Error(`${url}: HTTP ${response.status}`)
    return response
  } finally {
    clearTimeout(timer)
  }
}

const publishedSha256 = async (archiveName) => {
  try {
    const text = await (await get(`https://github.com/temporalio/cli/releases/download/v${cliVersion}/checksums.txt`, 20)).text()
    return text.split('\n').map((line) => line.trim().split(/\s+\*?/)).find(([, name]) => name === archiveName)?.[0] ?? null
  } catch {
    return null
  }
}

/** The official archive, checked against the published digest where one can be had, unpacked into `folder`. */
export const downloadTemporal = async (folder, say) => {
  const [platform, arch] = [process.platform, goArch[process.arch]]
  if (arch === undefined) throw new Error(`no official build for ${process.arch}`)
  const archive = join(folder, 'archive.tar.gz')
  const response = await get(`https://temporal.download/cli/archive/v${cliVersion}?platform=${platform}&arch=${arch}`, downloadSeconds)
  const total = Number(response.headers.get('content-length') ?? 0)
  say(`  downloading the Temporal CLI ${cliVersion}${total > 0 ? `, ${Math.round(total / 1e6)} MB` : ''}`)
  await pipeline(Readable.fromWeb(response.body), createWriteStream(archive))
  const expected = await publishedSha256(`temporal_cli_${cliVersion}_${platform}_${arch}.tar.gz`)
  const got = await sha256Of(archive)
  if (expected !== null && expected !== got) throw new Error(`sha256 of the download is ${got}: expected ${expected}`)
  say(`  sha256 ${got} ${expected === null ? '(no published digest could be read to compare it with)' : '(as published)'}`)
  await mustRun('tar', ['-xzf', archive, '-C', folder, 'temporal'], { quiet: true, fix: 'tar is needed to unpack the download.' })
  return join(folder, 'temporal')
}
