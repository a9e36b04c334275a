import { randomUUID } from 'node:crypto'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { isAlive, thisProcess } from '../job-runner/process.ts'

/** Under the folder that workers and jobs share: where what gets its name only when it is whole is written meanwhile. */
export const draftsIn = (workDir: string): string => join(workDir, 'drafts')

/** A file name that nobody else uses and that tells who writes it, so that what a dead process left is known as such. */
export const draftName = async (): Promise<string> => {
  const { pid, host, bootId, startTicks } = await thisProcess()
  return `.tmp-${pid}-${startTicks === '' ? 0 : startTicks}-${bootId === '' ? 0 : bootId}-${nameOf(host)}-${randomUUID()}`
}

/** Removes the drafts that processes of this machine left when they were killed; returns how many. */
export const sweepDrafts = async (workDir: string): Promise<number> => {
  const folder = draftsIn(workDir)
  const { host } = await thisProcess()
  const names = await readdir(folder).catch(() => [])
  const left = await Promise.all(names.map(async (name) => (await isLeft(name, host)) ? [name] : []))
  await Promise.all(left.flat().map((name) => rm(join(folder, name), { force: true })))
  return left.flat().length
}

const isLeft = async (name: string, host: string): Promise<boolean> => {
  const [, pid, ticks, boot, writer] = /^\.tmp-(\d+)-(\d+)-([0-9a-f-]+)-([A-Za-z0-9._]+)-[0-9a-f-]{36}$/.exec(name) ?? []
  if (writer !== nameOf(host)) return false
  return !(await isAlive({ pid: Number(pid), startTicks: ticks === '0' ? '' : (ticks ?? ''), bootId: boot === '0' ? '' : (boot ?? ''), host, oomKills: 0 }))
}

const nameOf = (host: string): string => host.replace(/[^A-Za-z0-9.]/g, '_').slice(0, 64)
