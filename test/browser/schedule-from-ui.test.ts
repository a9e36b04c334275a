import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium, type Browser, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { AlmrLrSweepInput, AlmrLrSweepResult } from '@cpt/contracts/almr-lr-sweep'
import { controlQueue } from '@cpt/contracts/ids'
import { findChromium } from '../../infra/bootstrap/chromium.mjs'
import { briefRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

/** Pictures for docs/schedules.md go where CPT_SCREENSHOTS says; otherwise they are kept only for whoever looks into a failure. */
const pictures = process.env['CPT_SCREENSHOTS'] ?? mkdtempSync(join(tmpdir(), 'cpt-screenshots-'))
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

/** Two trials of the preset's proxy on the newest committed corpus of a name. */
const input: AlmrLrSweepInput = {
  name: 'by-hand', run: { corpus: { newest: 'small' } }, grid: { almr: [0.5], peakLrs: [1e-3], seeds: [1] }, tokensPerTrial: 65_536,
  parkedTrials: 'leave', whenUnchanged: 'end',
}

let system: System
let browser: Browser
let page: Page
let hasFailed = false
beforeAll(async () => {
  const executablePath = findChromium()
  if (executablePath === null) throw new Error('the browser tests need Chromium: install it, or set CPT_CHROMIUM to its path')
  mkdirSync(pictures, { recursive: true })
  system = await startSmallSystem()
  browser = await chromium.launch({ executablePath, args: flags })
  page = await browser.newPage({ viewport: { width: 1250, height: 1200 } })
  page.setDefaultTimeout(60_000)
})
afterAll(async () => {
  await browser.close()
  await system.stop()
  if (!hasFailed && process.env['CPT_SCREENSHOTS'] === undefined) rmSync(pictures, { recursive: true })
})
const picture = (name: string) => page.screenshot({ path: join(pictures, `${name}.png`) })
afterEach(async ({ task }) => {
  if (task.result?.state !== 'fail') return
  hasFailed = true
  await page.screenshot({ path: join(pictures, 'failed-schedule.png'), fullPage: true })
})

/** Presses Trigger on the page of the schedule, and returns the workflow that it began. */
const triggerFromPage = async (before: readonly string[]): Promise<string> => {
  await page.locator('#schedule-actions-menu-button').click()
  await page.getByTestId('trigger-schedule').click()
  const dialog = page.locator('dialog[open]')
  await dialog.getByText('Use Policy').waitFor()
  await dialog.getByTestId('confirm-modal-button').click()
  return await until('the schedule to begin a sweep', async () => {
    const { info } = await system.client.schedule.getHandle('nightly-by-hand').describe()
    return info.recentActions.map((a) => a.action.workflow.workflowId).find((id) => !before.includes(id)) ?? null
  })
}

test('a schedule made in the form is triggered from its page: the sweep starts and chooses, and with nothing new it ends unchanged', async () => {
  await system.client.workflow.execute('corpusPreparation', { taskQueue: controlQueue, workflowId: 'corpus/small', args: [{ corpus: { name: 'small', ...briefRun().corpus } }] })

  await page.goto(`${system.server.uiUrl ?? ''}/namespaces/cpt/schedules/create`)
  await page.getByTestId('schedule-name-input').fill('nightly-by-hand')
  await page.getByTestId('schedule-type-input').fill('almrLrSweep')
  await page.getByTestId('schedule-workflow-id-input').fill('sweep/by-hand')
  await page.getByTestId('schedule-task-queue-input').fill('cpt')
  await page.getByRole('textbox').and(page.locator('[data-language="json"]')).last().click()
  // as a paste would, so that the editor adds no brackets of its own
  await page.keyboard.insertText(JSON.stringify(input, null, 2))
  // losing the focus the editor writes the JSON in its own way, and everything below moves
  await page.getByRole('heading', { name: 'Schedule Spec' }).click()
  await page.getByText('"whenUnchanged": "end"').waitFor()
  await picture('schedule-form')
  await page.getByTestId('daily-tab').click()
  await page.getByRole('button', { name: 'Everyday', exact: true }).click()
  await page.locator('input#hour:visible').fill('2')
  await page.locator('input#minute:visible').fill('30')
  await picture('schedule-times')
  await page.getByTestId('create-schedule-button').click()
  await page.getByRole('link', { name: 'nightly-by-hand' }).click()
  await page.getByText('Every day at 2:30 AM UTC').waitFor()

  const first = await triggerFromPage([])
  expect(first).toMatch(/^sweep\/by-hand-\d{4}-/)
  const resultOf = (id: string) => system.client.workflow.getHandle<(input?: AlmrLrSweepInput) => Promise<AlmrLrSweepResult>>(id).result()
  const result = await resultOf(first)
  expect(result.trials.map((t) => t.status)).toEqual(['done', 'done'])

  const second = await triggerFromPage([first])
  expect(await resultOf(second)).toMatchObject({ state: 'unchanged', verdictRef: result.verdictRef })
  await page.reload()
  await page.getByRole('link', { name: first }).waitFor()
  await page.getByRole('link', { name: second }).waitFor()
  await picture('schedule-page')
  await page.getByRole('link', { name: first }).click()
  await page.waitForURL(/\/workflows\/[^/]*by-hand/)
  await page.getByRole('heading', { name: first }).waitFor()
  await page.getByTestId('workflow-status').getByText('Completed').first().waitFor()
})
