import { closeSync, fsyncSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

export interface ChaosEvent {
  what: string
  atMs: number
  [detail: string]: unknown
}

/** What an experiment did and saw, in order, durable before the next thing is done. */
export interface EventLog {
  readonly path: string
  readonly events: readonly ChaosEvent[]
  add: (what: string, detail?: Record<string, unknown>) => ChaosEvent
  close: () => void
}

export const openEventLog = (path: string): EventLog => {
  mkdirSync(dirname(path), { recursive: true })
  const file = openSync(path, 'a')
  const events: ChaosEvent[] = []
  return {
    path,
    events,
    add: (what, detail = {}) => {
      const event = { what, atMs: Date.now(), ...detail }
      events.push(event)
      writeSync(file, `${JSON.stringify(event)}\n`)
      fsyncSync(file)
      return event
    },
    close: () => closeSync(file),
  }
}
