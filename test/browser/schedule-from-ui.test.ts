import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { AlmrLrSweepInput, AlmrLrSweepResult } from '@cpt/contracts/almr-lr-sweep'
import { controlQueue } from '@cpt/contracts/ids'
import { briefRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import type { System } from '../harness/system.ts'
import { openUi, type Ui } from '../harness/ui.ts'
import { until } from '../harness/until.ts'

/** Two trials of the preset's proxy on the newest committed corpus of a name. */
const input: AlmrLrSweepInput = {
  name: 'by-hand', run: { corpus: { newest: 'small' } }, grid: { almr: [0.5], peakLrs: [1e-3], seeds: [1] }, tokensPerTrial: 65_536,
  parkedTrials: 'leave', whenUnchanged: 'end',
}

let system: System
let ui: Ui
beforeAll(async () => {
  system = await startSmallSystem()
  ui = await openUi(system, { width: 1250, height: 1200 })
  ui.page.setDefaultTimeout(60_000)
})
afterAll(async () => {
  await ui.close()
  await system.stop()
})
afterEach(({ task }) => ui.after(task))

/** Presses Trigger on the page of the schedule, and returns the workflow that it began. */
const triggerFromPage = async (before: readonly string[]): Promise<string> => {
  await ui.page.locator('#schedule-actions-menu-button').click()
  await ui.page.getByTestId('trigger-schedule').click()
  const dialog = ui.page.locator('dialog[open]')
  await dialog.getByText('Use Policy').waitFor()
  await dialog.getByTestId('confirm-modal-button').click()
  return await until('the schedule to begin a sweep', async () => {
    const { info } = await system.client.schedule.getHandle('nightly-by-hand').describe()
    return info.recentActions.map((a) => a.action.workflow.workflowId).find((id) => !before.includes(id)) ?? null
  })
}

test('a schedule made in the form is triggered from its page: the sweep starts and chooses, and with nothing new it ends unchanged', async () => {
  await system.client.workflow.execute('corpusPreparation', { taskQueue: controlQueue, workflowId: 'corpus/small', args: [{ corpus: { name: 'small', ...briefRun().corpus } }] })

  await ui.page.goto(`${system.server.uiUrl ?? ''}/namespaces/cpt/schedules/create`)
  await ui.page.getByTestId('schedule-name-input').fill('nightly-by-hand')
  await ui.page.getByTestId('schedule-type-input').fill('almrLrSweep')
  await ui.page.getByTestId('schedule-workflow-id-input').fill('sweep/by-hand')
  await ui.page.getByTestId('schedule-task-queue-input').fill('cpt')
  await ui.paste(input)
  // losing the focus the editor writes the JSON in its own way, and everything below moves
  await ui.page.getByRole('heading', { name: 'Schedule Spec' }).click()
  await ui.page.getByText('"whenUnchanged": "end"').waitFor()
  await ui.picture('schedule-form')
  await ui.page.getByTestId('daily-tab').click()
  await ui.page.getByRole('button', { name: 'Everyday', exact: true }).click()
  await ui.page.locator('input#hour:visible').fill('2')
  await ui.page.locator('input#minute:visible').fill('30')
  await ui.picture('schedule-times')
  await ui.page.getByTestId('create-schedule-button').click()
  await ui.page.getByRole('link', { name: 'nightly-by-hand' }).click()
  await ui.page.getByText('Every day at 2:30 AM UTC').waitFor()

  const first = await triggerFromPage([])
  expect(first).toMatch(/^sweep\/by-hand-\d{4}-/)
  const resultOf = (id: string) => system.client.workflow.getHandle<(input?: AlmrLrSweepInput) => Promise<AlmrLrSweepResult>>(id).result()
  const result = await resultOf(first)
  expect(result.trials.map((t) => t.status)).toEqual(['done', 'done'])

  const second = await triggerFromPage([first])
  expect(await resultOf(second)).toMatchObject({ state: 'unchanged', verdictRef: result.verdictRef })
  await ui.page.reload()
  await ui.page.getByRole('link', { name: first }).waitFor()
  await ui.page.getByRole('link', { name: second }).waitFor()
  await ui.picture('schedule-page')
  await ui.page.getByRole('link', { name: first }).click()
  await ui.page.waitForURL(/\/workflows\/[^/]*by-hand/)
  await ui.page.getByRole('heading', { name: first }).waitFor()
  await ui.page.getByTestId('workflow-status').getByText('Completed').first().waitFor()
})
