import { ApplicationFailure, ServiceError, WorkflowNotFoundError, WorkflowUpdateFailedError } from '@temporalio/client'
import { expect, test } from 'vitest'
import { sendUpdate } from './send-update.ts'

/** A handle whose tries end one after the other as given: an error is thrown, a text is the answer. */
const handleThat = (...endings: (Error | string)[]) => {
  const sent: unknown[] = []
  const executeUpdate = (name: string, options: unknown): Promise<unknown> => {
    sent.push([name, options])
    const ending = endings.shift()
    return ending instanceof Error ? Promise.reject(ending) : Promise.resolve(ending)
  }
  return { handle: { workflowId: 'cpt/a', executeUpdate: executeUpdate as never }, sent }
}
const refusal = (type: string, message = 'not parked') => new WorkflowUpdateFailedError('Workflow Update failed', ApplicationFailure.nonRetryable(message, type))

test('what failed on the way, or met a run being continued as another, is sent again as the same update', async () => {
  const { handle, sent } = handleThat(new ServiceError('Workflow Update failed', { cause: new Error('unavailable') }), refusal('AcceptedUpdateCompletedWorkflow'), 'paused already')
  expect(await sendUpdate(handle, 'pause', { by: 'ann' }, { updateId: 'one' })).toBe('paused already')
  expect(sent).toEqual(Array(3).fill(['pause', { args: [{ by: 'ann' }], updateId: 'one' }]))
})

test('a refusal is final unless it is outdated', async () => {
  const final = handleThat(refusal('Error'), 'too late')
  await expect(sendUpdate(final.handle, 'resolveFailure', {})).rejects.toThrow('cpt/a did not take resolveFailure: not parked')
  expect(final.sent).toHaveLength(1)
  const outdated = handleThat(refusal('Error'), 'retry accepted')
  expect(await sendUpdate(outdated.handle, 'resolveFailure', {}, { isOutdated: () => Promise.resolve(true) })).toBe('retry accepted')
})

test('a run that has ended is not asked twice', async () => {
  const { handle, sent } = handleThat(new WorkflowNotFoundError('workflow execution already completed', 'cpt/a', undefined))
  await expect(sendUpdate(handle, 'pause', {})).rejects.toThrow('cpt/a takes no pause any more: workflow execution already completed')
  expect(sent).toHaveLength(1)
})
