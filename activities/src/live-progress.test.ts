import type { Logger } from '@temporalio/common'
import { MockActivityEnvironment } from '@temporalio/testing'
import type { LiveProgress } from '@cpt/contracts/cpt-run'
import type { Beat } from '@cpt/contracts/job'
import pino from 'pino'
import { expect, test } from 'vitest'
import { liveLine, type LiveLine } from './live-progress.ts'

const say = () => undefined
const silent: Logger = { log: say, trace: say, debug: say, info: say, warn: say, error: say }
const beat = (over: Partial<Beat>): Beat => ({ phase: 'tokenize', done: 0, total: 10, unit: '', seq: 1, ...over })

/** Runs within an activity, for less time than it takes until the workflow hears of it; returns the last heartbeat. */
const heartbeatOf = async (work: (line: LiveLine) => Promise<void>): Promise<LiveProgress> => {
  const env = new MockActivityEnvironment({ workflowExecution: { workflowId: 'cpt/x', runId: 'r' } }, { logger: silent })
  const beats: LiveProgress[] = []
  env.on('heartbeat', (details: unknown) => beats.push(details as LiveProgress))
  await env.run(() => work(liveLine({ client: {} as never, log: pino({ level: 'silent' }) }, 'tokenize')))
  return beats.at(-1)!
}

test('one range is shown as it is', async () => {
  expect(await heartbeatOf((line) => line.report(0, { attempt: 2, beat: beat({ phase: 'train', done: 3, step: 3, tokens: 300, loss: 2.5, tokensPerSecond: 10 }) }))).toEqual({
    key: 'tokenize', phase: 'train', done: 3, total: 10, step: 3, tokens: 300, loss: 2.5, tokensPerSecond: 10, etaSeconds: null, attempts: 2,
  })
})

test('several ranges are one line: what is done and to do is summed, and a finished one stays in the sum', async () => {
  const live = await heartbeatOf(async (line) => {
    await line.report(0, { attempt: 1, beat: beat({ done: 9, tokens: 90, tokensPerSecond: 5 }) })
    line.finish(0)
    await line.report(1, { attempt: 3, beat: beat({ done: 4, tokens: 40, tokensPerSecond: 7 }) })
  })
  expect(live).toMatchObject({ phase: 'tokenize', done: 14, total: 20, tokens: 130, tokensPerSecond: 7, step: null, loss: null, attempts: 3 })
})

test('ranges that do different things are counted by what they do', async () => {
  const live = await heartbeatOf(async (line) => {
    await line.report(0, { attempt: 1, beat: beat({ done: 1 }) })
    await line.report(1, { attempt: 1, beat: beat({ done: 2 }) })
    await line.report(2, { attempt: 1, beat: null, waits: 'waiting: Priority' })
    await line.report(3, { attempt: 2, beat: null, note: 'micro-batches of 64 tokens' })
  })
  expect(live).toMatchObject({ phase: '2 × tokenize, 1 × waiting: Priority, 1 × starting (micro-batches of 64 tokens)', done: 3, total: 20 })
})
