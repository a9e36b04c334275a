import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium, type FrameLocator, type Locator, type Page } from 'playwright-core'
import { findChromium } from '../../infra/bootstrap/chromium.mjs'
import type { System } from './system.ts'
import { until } from './until.ts'

/** Pictures for the docs go where CPT_SCREENSHOTS says; otherwise they are kept only for whoever looks into a failure. */
const given = process.env['CPT_SCREENSHOTS']
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
const patienceMs = 30_000

/** Temporal's UI in a real browser, and what a person does there. */
export interface Ui {
  readonly page: Page
  picture: (name: string) => Promise<unknown>
  /** To be called after each test: keeps a picture of a failure. */
  after: (task: { name: string; result?: { state: string } | undefined }) => Promise<void>
  tab: (name: string) => Promise<void>
  /** The UI shows current details as Markdown in a frame of its own. */
  details: () => FrameLocator
  /** The UI shows current details as they were when asked; R asks again, as its page says. */
  detailsSay: (what: RegExp, deadlineSeconds?: number) => Promise<string>
  statusIs: (status: string, timeoutMs?: number) => Promise<void>
  /** Fills in the form of the UI and starts; ends on the page of the workflow. */
  startFromForm: (workflowType: string, workflowId: string, input?: unknown) => Promise<void>
  goTo: (workflowId: string) => Promise<void>
  /** Types JSON into the page's last editor, as a paste would, so that it adds no brackets of its own. */
  paste: (json: unknown) => Promise<void>
  /** Sends an update by the page's own dialog; `shot` is the picture of it. */
  sendUpdate: (name: string, json: unknown, shot?: string) => Promise<void>
  close: () => Promise<void>
}

export const openUi = async (system: System, viewport = { width: 1400, height: 1150 }): Promise<Ui> => {
  const executablePath = findChromium()
  if (executablePath === null) throw new Error('the browser tests need Chromium: install it, or set CPT_CHROMIUM to its path')
  const pictures = given ?? mkdtempSync(join(tmpdir(), 'cpt-screenshots-'))
  mkdirSync(pictures, { recursive: true })
  const browser = await chromium.launch({ executablePath, args: flags })
  const page = await browser.newPage({ viewport })
  page.setDefaultTimeout(patienceMs)
  let hasFailed = false

  const picture: Ui['picture'] = (name) => page.screenshot({ path: join(pictures, `${name}.png`) })
  const details: Ui['details'] = () => page.frameLocator('iframe')
  const paste = async (within: Page | Locator, json: unknown): Promise<void> => {
    await within.locator('[role="textbox"][data-language="json"]').last().click()
    await page.keyboard.insertText(JSON.stringify(json, null, 2))
  }
  const workflows = `${system.server.uiUrl ?? ''}/namespaces/cpt/workflows`
  /** The server may answer that a workflow which is just at work is busy: the UI shows that, and a person loads the page again. */
  const opened = async (): Promise<void> => {
    const status = page.getByTestId('workflow-status')
    const busy = page.getByText('Too Many Requests')
    await status.or(busy).first().waitFor()
    if (await busy.isVisible()) await page.reload()
    await status.waitFor()
  }

  return {
    page, picture, details,
    paste: (json) => paste(page, json),
    after: async (task) => {
      if (task.result?.state !== 'fail') return
      hasFailed = true
      await page.screenshot({ path: join(pictures, `failed-${task.name.slice(0, 30).replaceAll(/\W+/g, '-')}.png`), fullPage: true })
    },
    tab: (name) => page.getByRole('main').getByText(name, { exact: true }).click(),
    detailsSay: (what, deadlineSeconds = 120) =>
      until(`current details with ${String(what)}`, async () => {
        await page.keyboard.press('r')
        const text = await details().locator('body').innerText()
        return what.test(text) ? text : null
      }, deadlineSeconds),
    statusIs: (status, timeoutMs = patienceMs) => page.getByTestId('workflow-status').getByText(status).waitFor({ timeout: timeoutMs }),
    startFromForm: async (workflowType, workflowId, input) => {
      await page.goto(workflows)
      await page.getByText('Start Workflow', { exact: true }).first().click()
      await page.getByTestId('workflowId').fill(workflowId)
      await page.getByTestId('taskQueue').fill('cpt')
      await page.getByTestId('workflowType').fill(workflowType)
      await page.getByText('Task Queue is Active').waitFor()
      if (input !== undefined) await paste(page, input)
      await picture('start-form')
      await page.getByTestId('start-workflow-button').click()
      await page.getByRole('link', { name: 'Workflow started successfully' }).click()
      await opened()
    },
    goTo: async (workflowId) => {
      await page.goto(`${workflows}/${encodeURIComponent(workflowId)}`)
      await opened()
    },
    sendUpdate: async (name, json, shot) => {
      await page.getByRole('button', { name: 'More Actions' }).click()
      await page.getByRole('menuitem', { name: 'Send an Update' }).click()
      const dialog = page.locator('dialog[open]')
      await dialog.getByTestId('update-select-button').click()
      await dialog.getByRole('option', { name: new RegExp(`^${name}`) }).click()
      await paste(dialog, json)
      if (shot !== undefined) await picture(shot)
      await dialog.getByTestId('confirm-modal-button').click()
    },
    close: async () => {
      await browser.close()
      if (!hasFailed && given === undefined) rmSync(pictures, { recursive: true })
    },
  }
}
