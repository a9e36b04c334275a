import { randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Client, ScheduleDescription } from '@temporalio/client'
import { CliError } from '../cli-error.ts'
import { operator, readConfig } from '../config.ts'
import { connect, type Session } from '../connect.ts'
import { plainText } from '../plain-text.ts'
import { desiredOf, differences, viewOf, type Decided } from './desired.ts'
import { readSchedule, type ScheduleFile } from './schedule-file.ts'

export interface ScheduleFlags {
  state?: string
  dir?: string
}

/** The schedules that are code: every YAML or JSON file of infra/schedules, or of another folder. */
export const schedulesAsCode = (home: string, dir: string | undefined): { file: string; schedule: ScheduleFile }[] => {
  const folder = dir ?? join(home, 'infra', 'schedules')
  let names: string[]
  try {
    names = readdirSync(folder).filter((name) => /\.(ya?ml|json)$/i.test(name)).sort()
  } catch {
    throw new CliError('usage', `${folder}: no such folder`, 'Name the folder of schedules with --dir.')
  }
  return unique(names.map((name) => ({ file: name, schedule: readSchedule(join(folder, name)) })))
}

const unique = <T extends { file: string; schedule: ScheduleFile }>(all: T[]): T[] => {
  for (const [i, { file, schedule }] of all.entries()) {
    const other = all.slice(0, i).find((o) => o.schedule.id === schedule.id)
    if (other !== undefined) throw new CliError('usage', `${other.file} and ${file} are both schedule ${schedule.id}; nothing was applied`, 'Give each an id of its own.')
  }
  return all
}

/** Makes the server's schedules what the files say; all files are checked before the first one is sent. */
export const apply = async (files: readonly string[], flags: ScheduleFlags): Promise<void> => {
  const config = readConfig({ stateDir: flags.state })
  const all = files.length === 0 ? schedulesAsCode(config.home, flags.dir) : unique(files.map((file) => ({ file, schedule: readSchedule(file) })))
  if (all.length === 0) return void process.stdout.write('no schedule to apply\n')
  const session = await connect(config)
  try {
    for (const { file, schedule } of all) {
      const { what, changes, held } = await applySchedule(session, file, schedule)
      process.stdout.write([`${schedule.id}  ${what}${held === null ? '' : `; still paused: ${plainText(held)}`}`, ...changes.map((line) => `  ${plainText(line)}`)].join('\n') + '\n')
    }
  } finally {
    await session.close()
  }
}

interface Applied {
  what: 'created' | 'changed' | 'unchanged'
  changes: string[]
  /** The note of an operator's pause. */
  held: string | null
}

const triesAgainstOthers = 10
const alreadyExists = 6
const settle = { everyMs: 200, patienceMs: 3_000 }
const hasCode = (error: unknown, code: number): boolean => typeof error === 'object' && error !== null && 'code' in error && error.code === code

/**
 * Creates or updates one schedule. What an operator decides (paused or not, and the note) goes on as it is: it is sent back
 * with the token of the moment it was read at. The server passes over, in silence, an update that somebody overtook; so
 * the schedule is looked at again until it is what the file says.
 */
export const applySchedule = async (session: Session, file: string, schedule: ScheduleFile): Promise<Applied> => {
  const { client, namespace, taskQueue } = session
  const desired = await desiredOf(client, taskQueue, schedule)
  const address = () => ({ namespace, scheduleId: schedule.id, identity: operator(), requestId: randomUUID() })
  const changes: string[] = []
  for (let n = 1; n <= triesAgainstOthers; n++) {
    const found = await described(client, schedule.id)
    if (found === null) {
      try {
        await client.workflowService.createSchedule({ ...address(), schedule: { ...desired, state: { notes: `made from ${basename(file)}` } } })
        return { what: 'created', changes, held: null }
      } catch (error) {
        if (!hasCode(error, alreadyExists)) throw error
        continue
      }
    }
    const is = found.raw.schedule ?? {}
    const differ = differences(await viewOf(client, is), await viewOf(client, desired))
    if (differ.length === 0) return { what: changes.length === 0 ? 'unchanged' : 'changed', changes, held: found.state.paused ? (found.state.note ?? '') : null }
    changes.splice(0, changes.length, ...differ)
    await client.workflowService.updateSchedule({ ...address(), schedule: { ...desired, state: is.state ?? null }, conflictToken: found.raw.conflictToken ?? null })
    await becomes(client, schedule.id, desired)
  }
  throw new CliError('failed', `${schedule.id}: somebody else keeps changing it`, 'See who does, then apply again.')
}

const described = async (client: Client, id: string): Promise<ScheduleDescription | null> => {
  const { ScheduleNotFoundError } = await import('@temporalio/client')
  return await client.schedule.getHandle(id).describe().catch((error: unknown) => {
    if (error instanceof ScheduleNotFoundError) return null
    throw error
  })
}

/** Waits until the schedule is what was sent, or for so long that it was passed over. */
const becomes = async (client: Client, id: string, desired: Decided): Promise<void> => {
  const wanted = await viewOf(client, desired)
  const lateMs = performance.now() + settle.patienceMs
  while (performance.now() < lateMs) {
    const found = await described(client, id)
    if (found === null || differences(await viewOf(client, found.raw.schedule ?? {}), wanted).length === 0) return
    await sleep(settle.everyMs)
  }
}

/** What a schedule on the server would be changed in by its file. */
export const driftOf = async ({ client, taskQueue }: Session, schedule: ScheduleFile, is: Partial<Decided>): Promise<string[]> =>
  differences(await viewOf(client, is), await viewOf(client, await desiredOf(client, taskQueue, schedule)))
