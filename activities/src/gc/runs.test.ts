import { readFileSync } from 'node:fs'
import { WorkflowNotFoundError, type Client } from '@temporalio/client'
import { historyFromJSON } from '@temporalio/common/lib/proto-utils'
import type { Payload, PayloadCodec } from '@temporalio/common'
import { describe, expect, test } from 'vitest'
import { StoreCorrupt } from '../stage-failure.ts'
import { runsOf } from './runs.ts'

type History = ReturnType<typeof historyFromJSON>

const recorded = (name: string): History => historyFromJSON((JSON.parse(readFileSync(new URL(`../../../test/replay/histories/${name}.json`, import.meta.url), 'utf8')) as { history: unknown }).history)
const noManifests = { manifest: () => Promise.reject(new StoreCorrupt('no manifest is here')) }

/** A server that knows these executions; the histories are of real runs. */
const serverOf = (runs: { history: History; status: 'RUNNING' | 'COMPLETED' | 'FORGOTTEN' }[], payloadCodecs: PayloadCodec[] = []) => {
  const asked: string[] = []
  const client = {
    options: { loadedDataConverter: { payloadCodecs } },
    workflow: {
      async *list() {
        for (const [i, { status }] of runs.entries()) yield await Promise.resolve({ workflowId: `cpt/${i}`, runId: String(i), status: { name: status === 'RUNNING' ? 'RUNNING' : 'COMPLETED' } })
      },
      getHandle: (_: string, runId: string) => ({
        fetchHistory: () => {
          asked.push(runId)
          const run = runs[Number(runId)]
          return run === undefined || run.status === 'FORGOTTEN' ? Promise.reject(new WorkflowNotFoundError('forgotten', `cpt/${runId}`, runId)) : Promise.resolve(run.history)
        },
      }),
    },
  }
  return { client: client as unknown as Client, asked }
}

const jsonOf = (payload: Payload | null | undefined): unknown => JSON.parse(Buffer.from(payload?.data ?? new Uint8Array()).toString('utf8'))
const outcomesOf = (history: History) =>
  (history.events ?? []).flatMap((e) => {
    const result = e.activityTaskCompletedEventAttributes?.result?.payloads?.[0]
    const outcome = result == null ? null : (jsonOf(result) as { fingerprint?: string } | null)
    return typeof outcome?.fingerprint === 'string' ? [outcome.fingerprint] : []
  })

describe('what runs want', () => {
  test('is every result and every decision that a history names', async () => {
    const history = recorded('complete')
    const marks = await runsOf(serverOf([{ history, status: 'COMPLETED' }]).client, noManifests)()
    expect(outcomesOf(history).length).toBeGreaterThan(15)
    for (const f of outcomesOf(history)) expect(marks.fingerprints).toContain(f)
    expect(marks.decisions.size).toBe(1)
  })

  test('is the work of a stage that is only begun: its fingerprint follows from its request', async () => {
    const history = recorded('complete')
    // as the server knew it before the first stage had ended, and every later one as if it were still under way
    const begun = { events: (history.events ?? []).filter((e) => e.activityTaskScheduledEventAttributes != null) }
    const marks = await runsOf(serverOf([{ history: begun, status: 'RUNNING' }]).client, noManifests)()
    for (const f of outcomesOf(history)) expect(marks.fingerprints).toContain(f)
  })

  test('is read through the codec that hides it', async () => {
    const history = recorded('complete')
    const flip = (p: Payload, encoding: string): Payload => ({ metadata: { encoding: Buffer.from(encoding) }, data: (p.data ?? new Uint8Array()).map((b) => b ^ 0xff) })
    const codec: PayloadCodec = { encode: (ps) => Promise.resolve(ps), decode: (ps) => Promise.resolve(ps.map((p) => flip(p, 'json/plain'))) }
    const hide = (value: unknown): unknown => {
      if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value
      if ('data' in value && value.data instanceof Uint8Array) return flip(value as Payload, 'binary/flipped')
      if (Array.isArray(value)) return value.map(hide)
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, hide(v)]))
    }
    const hidden = { events: hide(history.events) } as History
    const [plain, decoded] = await Promise.all([
      runsOf(serverOf([{ history, status: 'RUNNING' }]).client, noManifests)(),
      runsOf(serverOf([{ history: hidden, status: 'RUNNING' }], [codec]).client, noManifests)(),
    ])
    expect(decoded.fingerprints).toEqual(plain.fingerprints)
    // without the codec it names nothing that can be seen, which must not pass for wanting nothing
    await expect(runsOf(serverOf([{ history: hidden, status: 'COMPLETED' }]).client, noManifests)()).rejects.toThrow('payloads of encoding binary/flipped')
  })

  test('is asked anew of open runs, and once of closed ones; a run that is forgotten meanwhile wants nothing', async () => {
    const history = recorded('complete')
    const { client, asked } = serverOf([{ history, status: 'RUNNING' }, { history, status: 'COMPLETED' }, { history, status: 'FORGOTTEN' }])
    const runs = runsOf(client, noManifests)
    const [first, second] = [await runs(), await runs()]
    expect(second).toEqual(first)
    expect(asked.toSorted()).toEqual(['0', '0', '1', '2'])
  })

  test('cannot be told while the store does not answer: that is no reason to sweep', async () => {
    const history = recorded('complete')
    const silent = { manifest: () => Promise.reject(new Error('the store does not answer')) }
    await expect(runsOf(serverOf([{ history, status: 'RUNNING' }]).client, silent)()).rejects.toThrow('the store does not answer')
  })
})
