import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DecisionRecord } from '@cpt/contracts/activities'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { localDiskStore } from './artifact-store/local-disk.ts'
import { recordDecision } from './record-decision.ts'

let root = ''
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cpt-decisions-'))
})
afterEach(() => rm(root, { recursive: true }))

const decide = (key: string, output: unknown, firstRunId = 'run-1', inputs: unknown = { alpha: 0.5 }) => {
  const record: DecisionRecord<unknown> = { run: { workflowId: 'cpt/x', firstRunId }, key, kind: 'reweight', inputs, output }
  return recordDecision({ store: localDiskStore({ store: root }) })(record)
}

test('the first decision holds: a changed formula gets back what was decided', async () => {
  const first = await decide('stage-1/round-1/reweight', { zh: 0.2 })
  expect(first.output).toEqual({ zh: 0.2 })
  expect(await decide('stage-1/round-1/reweight', { zh: 0.9 })).toEqual(first)
})

test('another key and another run of the same id decide for themselves', async () => {
  await decide('stage-1/round-1/reweight', 1)
  expect((await decide('stage-1/round-2/reweight', 2)).output).toBe(2)
  expect((await decide('stage-1/round-1/reweight', 3, 'run-2')).output).toBe(3)
})

test('other inputs, as after a patch, are another decision', async () => {
  await decide('stage-1/round-1/reweight', 1)
  expect((await decide('stage-1/round-1/reweight', 2, 'run-1', { alpha: 0.7 })).output).toBe(2)
})

test('a decision is kept with its inputs', async () => {
  const { uri } = await decide('gate', 'pass')
  expect(JSON.parse(Buffer.from((await localDiskStore({ store: root }).get(uri)) ?? '').toString('utf8'))).toEqual({ run: { workflowId: 'cpt/x', firstRunId: 'run-1' }, key: 'gate', kind: 'reweight', inputs: { alpha: 0.5 }, output: 'pass' })
})

test('of workers that decide at the same moment one does, and all go on with its answer', async () => {
  const answers = await Promise.all(Array.from({ length: 8 }, (_, i) => decide('stage-1/round-1/reweight', { zh: i / 8 })))
  expect(new Set(answers.map((a) => JSON.stringify(a))).size).toBe(1)
  expect(answers.map((a) => a.output)).toContainEqual(answers[0]?.output)
})

test('what a later asking gets is what the first one got, to the last digit', async () => {
  let round = 0
  await fc.assert(
    fc.asyncProperty(fc.jsonValue(), async (output) => {
      const key = `round-${(round += 1)}`
      const first = await decide(key, output)
      // as it crosses Temporal
      expect(JSON.parse(JSON.stringify(await decide(key, 'another formula')))).toEqual(JSON.parse(JSON.stringify(first)))
    }),
    { numRuns: 50 },
  )
})
