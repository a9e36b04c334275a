import { randomUUID } from 'node:crypto'
import { userInfo } from 'node:os'
import { WorkflowUpdateFailedError } from '@temporalio/client'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { sendDecision } from '@cpt/cli/run/resolve'
import { cpt } from '../harness/cli.ts'
import { parkOf, progressOf, resetRun, startRun } from '../harness/runs.ts'
import { strictRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { claimsIn } from '../harness/store.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

let system: System
beforeAll(async () => {
  system = await startSmallSystem()
})
afterAll(() => system.stop())

const me = userInfo().username

test('pause, resume and resolve from the CLI say what holds already when they are sent twice or late', async () => {
  const run = await startRun(system, 'twice', strictRun())
  const id = run.workflowId
  await parkOf(run, 'ingest')
  expect(await cpt(system, 'resume', id)).toMatchObject({ exitCode: 0, stdout: 'not paused\n' })
  expect(await cpt(system, 'pause', id)).toMatchObject({ exitCode: 0, stdout: `paused by ${me}: running jobs leave at their next commit, nothing new begins\n` })
  expect(await cpt(system, 'pause', id)).toMatchObject({ exitCode: 0, stdout: 'paused already\n' })
  expect(await cpt(system, 'resume', id)).toMatchObject({ exitCode: 0, stdout: `resumed by ${me}\n` })

  const early = await cpt(system, 'resolve', id, '--stage', 'ingest', '--park', '2', '--action', 'retry')
  expect(early).toMatchObject({ exitCode: 1, stdout: '' })
  expect(early.stderr).toContain('ingest is at park 1, not 2: look at the page again before you decide')
  expect((await progressOf(run)).decisions).toEqual([])

  expect(await cpt(system, 'resolve', id, '--action', 'retry')).toMatchObject({ exitCode: 0, stdout: 'retry accepted for ingest, park 1\n' })
  await parkOf(run, 'ingest', 2)
  expect(await cpt(system, 'resolve', id, '--stage', 'ingest', '--park', '1', '--action', 'abort')).toMatchObject({ exitCode: 0, stdout: `already decided: retry by ${me}\n` })
  const late = await cpt(system, 'resolve', id, '--park', '1', '--action', 'abort')
  expect(late).toMatchObject({ exitCode: 1, stdout: '' })
  expect(late.stderr).toMatch(/no stage waits for this decision\s+Waiting:\s+--stage ingest --park 2/)
  expect((await progressOf(run)).decisions).toMatchObject([{ stage: 'ingest', park: 1, action: 'retry', by: me }])
  await run.cancel()
  await expect(run.result()).rejects.toThrow('cancelled')
})

test('cancel says whether it was sent before, and what comes after the end of a run is refused with how it ended', async () => {
  const run = await startRun(system, 'cancel-twice', strictRun())
  const id = run.workflowId
  await parkOf(run, 'ingest')
  // without a worker the run cannot end in between
  await system.stopWorker()
  expect((await cpt(system, 'cancel', id)).stdout).toMatch(/: told to stop; its jobs save and leave\./)
  expect(await cpt(system, 'cancel', id)).toMatchObject({ exitCode: 0, stdout: expect.stringContaining(': told to stop already;') })
  await system.startWorker()
  await expect(run.result()).rejects.toThrow('cancelled')
  expect((await cpt(system, 'cancel', id)).stderr).toContain(`${id} cannot be cancelled: it is cancelled`)
  for (const [name, ...args] of [['pause'], ['resume'], ['resolveFailure', '--stage', 'ingest', '--park', '1', '--action', 'retry']] as const) {
    const late = await cpt(system, name === 'resolveFailure' ? 'resolve' : name, id, ...args)
    expect(late).toMatchObject({ exitCode: 1, stdout: '' })
    expect(late.stderr).toContain(`${id} takes no ${name} any more: workflow execution already completed`)
  }
})

test('a decision that reaches a run in the moment in which it parks is sent again by the CLI, and acts once', async () => {
  const run = await startRun(system, 'race', strictRun())
  await parkOf(run, 'ingest')
  const claims = await claimsIn(system.storeDir)
  await system.stopWorker()
  // undoes only the task in which the stage parked, so that it comes again together with what is sent meanwhile
  const reset = await resetRun(system, run, (events) => events.findLastIndex((e) => e.workflowTaskCompletedEventAttributes != null))
  const decision = { stage: 'ingest', park: 1, action: 'retry' as const, reason: '', by: 'ann' }
  const [byHand, byCli] = [randomUUID(), randomUUID()]
  const isAdmitted = async (updateId: string): Promise<boolean> => {
    try {
      await system.client.workflowService.pollWorkflowExecutionUpdate({ namespace: system.server.namespace, updateRef: { workflowExecution: { workflowId: run.workflowId }, updateId } })
      return true
    } catch {
      return false
    }
  }
  const refused = reset.executeUpdate<string, [unknown]>('resolveFailure', { args: [decision], updateId: byHand }).catch((e: unknown) => (e instanceof WorkflowUpdateFailedError ? e.cause?.message : String(e)))
  await until('the decision sent by hand to wait at the server', () => isAdmitted(byHand))
  const answer = sendDecision(reset, decision, byCli)
  await until('the decision of the CLI to wait at the server', () => isAdmitted(byCli))
  await system.startWorker()

  expect(await refused).toBe('ingest is not parked; nothing is')
  expect(await answer).toBe('retry accepted for ingest, park 1')
  await parkOf(reset, 'ingest', 2)
  expect((await progressOf(reset)).decisions).toMatchObject([{ stage: 'ingest', park: 1, action: 'retry', by: 'ann' }])
  expect(await claimsIn(system.storeDir)).toEqual(claims)
  await reset.cancel()
  await expect(reset.result()).rejects.toThrow('cancelled')
})
