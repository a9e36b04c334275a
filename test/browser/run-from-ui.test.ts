import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium, type Browser, type FrameLocator, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { findChromium } from '../../infra/bootstrap/chromium.mjs'
import { smallRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

/** Pictures for the README go where CPT_SCREENSHOTS says; otherwise they are kept only for whoever looks into a failure. */
const pictures = process.env['CPT_SCREENSHOTS'] ?? mkdtempSync(join(tmpdir(), 'cpt-screenshots-'))
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
const patienceMs = 30_000
const runMs = 400_000

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
  page = await browser.newPage({ viewport: { width: 1400, height: 1150 } })
  page.setDefaultTimeout(patienceMs)
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
  await page.screenshot({ path: join(pictures, `failed-${task.name.slice(0, 30).replaceAll(/\W+/g, '-')}.png`), fullPage: true })
})
const tab = (name: string) => page.getByRole('main').getByText(name, { exact: true }).click()
/** The UI shows current details as Markdown in a frame of its own. */
const details = (): FrameLocator => page.frameLocator('iframe')
const editor = () => page.getByRole('textbox').and(page.locator('[data-language="json"]'))

/** Types JSON as a paste would, so that the editor adds no brackets of its own. */
const paste = async (json: unknown): Promise<void> => {
  await editor().last().click()
  await page.keyboard.insertText(JSON.stringify(json, null, 2))
}

/** Fills in the form of the UI and starts; ends on the page of the run. */
const startFromForm = async (workflowId: string, input?: unknown): Promise<void> => {
  await page.goto(`${system.server.uiUrl ?? ''}/namespaces/cpt/workflows`)
  await page.getByText('Start Workflow', { exact: true }).first().click()
  await page.getByTestId('workflowId').fill(workflowId)
  await page.getByTestId('taskQueue').fill('cpt')
  await page.getByTestId('workflowType').fill('cptRun')
  await page.getByText('Task Queue is Active').waitFor()
  if (input !== undefined) await paste(input)
  await picture('start-form')
  await page.getByTestId('start-workflow-button').click()
  await page.getByRole('link', { name: 'Workflow started successfully' }).click()
  await page.getByTestId('workflow-status').waitFor()
}

/** The UI shows current details as they were when asked; R asks again, as its page says. */
const detailsSay = (what: RegExp) =>
  until(`current details with ${String(what)}`, async () => {
    await page.keyboard.press('r')
    const text = await details().locator('body').innerText()
    return what.test(text) ? text : null
  })

const statusIs = (status: string, timeout = patienceMs) => page.getByTestId('workflow-status').getByText(status).waitFor({ timeout })

test('the form starts a run, and its page tells what happens until the model is there', async () => {
  // the page hears of steps every ten seconds, so training has to last longer than that
  const plan = [{ name: 'stage-1', rounds: 1, tokens: 64 * 4096, order: 'perplexity' as const, mixture: { languages: { zh: 0.4, en: 0.6 } } }]
  await startFromForm('cpt/from-the-ui', smallRun({ name: 'from-the-ui', plan }))
  await tab('User Metadata')
  await detailsSay(/Running .* stages done/)
  await detailsSay(/step \d+ · loss [\d.]+ · \d+ tokens\/s/)
  await picture('running-page')
  await statusIs('Completed', runMs)
  const text = await detailsSay(/Done/)
  expect(text).toContain('Report: ')
  expect(text).toMatch(/stage-1\/round-1\/train\s+64 steps, 262144 tokens, loss [\d.]+\s+done\s+[\d.]+/)
  await picture('run-page')
  await tab('Timeline')
  await page.getByText('"verdict": "pass"').waitFor()
  await picture('run-timeline')
  await tab('Search Attributes')
  await page.getByText('"CptStatus": "done"').waitFor()
  for (const line of ['"CptKind": "cptRun"', '"CptOwner": "tests"', '"CptAlmr": 0.4']) expect(await page.getByText(line).count()).toBe(1)
})

test('an empty input starts the quickstart, and the page’s own button cancels it', async () => {
  await startFromForm('cpt/empty', {})
  await tab('User Metadata')
  await detailsSay(/Running/)
  await page.getByRole('button', { name: 'Request Cancellation' }).click()
  await page.locator('dialog[open]').getByTestId('confirm-modal-button').click()
  await statusIs('Canceled')
})

test('a wrong input ends at once and the page lists every problem by path', async () => {
  await startFromForm('cpt/wrong', { training: { peakLr: -1 }, pressets: 'quickstart', seed: 'seven' })
  await statusIs('Failed')
  await page.getByText('3 problems in the input').first().waitFor()
  const text = await page.getByRole('main').innerText()
  for (const path of ['training.peakLr', 'pressets', 'seed']) expect(text).toContain(`${path}: expected`)
  await picture('wrong-input')
})

test('a parked run says what to do, and goes on when just that is pasted into the page’s own dialog', async () => {
  await startFromForm('cpt/parked', smallRun({ name: 'parked', corpus: { ...smallRun().corpus, maxQuarantineRatio: 0 } }))
  await tab('User Metadata')
  const text = await detailsSay(/Parked: ingest/)
  expect(text).toMatch(/\d+ of \d+ lines .* could not be read, allowed are 0 %/)
  expect(text).toContain('Send an Update')
  await picture('parked-run')
  const decision = JSON.parse(await details().locator('pre').first().innerText()) as object

  await page.getByRole('button', { name: 'More Actions' }).click()
  await page.getByRole('menuitem', { name: 'Send an Update' }).click()
  const dialog = page.locator('dialog[open]')
  await dialog.getByTestId('update-select-button').click()
  await dialog.getByRole('option', { name: /^resolveFailure/ }).click()
  await paste({ ...decision, patch: { request: { maxQuarantineRatio: 0.1 } }, reason: 'known dirt' })
  await picture('resolve-dialog')
  await dialog.getByTestId('confirm-modal-button').click()
  await statusIs('Completed', runMs)
})
