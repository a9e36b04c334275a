import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { isAlive } from '../../../infra/bootstrap/process-identity.mjs'

const Identity = z.object({ pid: z.int(), start: z.string() })

/** `up.json` in the state folder: what `cpt up` keeps running, for other commands to attach to and to clean up after. */
export const UpRecord = z.object({
  format: z.literal('cpt-up/1'),
  address: z.string(),
  namespace: z.string(),
  taskQueue: z.string(),
  uiUrl: z.string().nullable(),
  reportsUrl: z.string(),
  stateDir: z.string(),
  ports: z.object({ server: z.int(), ui: z.int(), reports: z.int() }).nullable(),
  processes: z.object({ up: Identity, server: Identity.nullable(), worker: Identity.nullable() }),
  ready: z.boolean(),
})
export type UpRecord = z.infer<typeof UpRecord>

const path = (stateDir: string): string => join(stateDir, 'up.json')
export const lockPath = (stateDir: string): string => join(stateDir, 'up.lock')

export const writeUpRecord = (record: UpRecord): void => {
  mkdirSync(record.stateDir, { recursive: true })
  const draft = `${path(record.stateDir)}.${process.pid}`
  writeFileSync(draft, JSON.stringify(record, null, 2))
  renameSync(draft, path(record.stateDir))
}

export const removeUpRecord = (stateDir: string): void => rmSync(path(stateDir), { force: true })

/** The record as it lies there, whoever wrote it; null when there is none that can be read. */
export const readUpRecord = (stateDir: string): UpRecord | null => {
  try {
    return UpRecord.parse(JSON.parse(readFileSync(path(stateDir), 'utf8')))
  } catch {
    return null
  }
}

/** The record of a `cpt up` that lives and is ready. */
export const runningUp = (stateDir: string): UpRecord | null => {
  const record = readUpRecord(stateDir)
  return record !== null && record.ready && isAlive(record.processes.up) ? record : null
}
