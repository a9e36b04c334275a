import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { smallRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import type { System } from '../harness/system.ts'
import { openUi, type Ui } from '../harness/ui.ts'

const runMs = 400_000

let system: System
let ui: Ui
beforeAll(async () => {
  system = await startSmallSystem()
  ui = await openUi(system)
})
afterAll(async () => {
  await ui.close()
  await system.stop()
})
afterEach(({ task }) => ui.after(task))

test('the form starts a run, and its page tells what happens until the model is there', async () => {
  // the page hears of steps every ten seconds, so training has to last longer than that
  const plan = [{ name: 'stage-1', rounds: 1, tokens: 64 * 4096, order: 'perplexity' as const, mixture: { languages: { zh: 0.4, en: 0.6 } } }]
  await ui.startFromForm('cptRun', 'cpt/from-the-ui', smallRun({ name: 'from-the-ui', plan }))
  await ui.tab('User Metadata')
  await ui.detailsSay(/Running .* stages done/)
  await ui.detailsSay(/step \d+ · loss [\d.]+ · \d+ tokens\/s/)
  await ui.picture('running-page')
  await ui.statusIs('Completed', runMs)
  const text = await ui.detailsSay(/Done/)
  expect(text).toContain('Report: ')
  expect(text).toMatch(/stage-1\/round-1\/train\s+64 steps, 262144 tokens, loss [\d.]+\s+done\s+[\d.]+/)
  await ui.picture('run-page')
  await ui.tab('Timeline')
  await ui.page.getByText('"verdict": "pass"').waitFor()
  await ui.picture('run-timeline')
  await ui.tab('Search Attributes')
  await ui.page.getByText('"CptStatus": "done"').waitFor()
  for (const line of ['"CptKind": "cptRun"', '"CptOwner": "tests"', '"CptAlmr": 0.4']) expect(await ui.page.getByText(line).count()).toBe(1)
})

test('an empty input starts the quickstart, and the page’s own button cancels it', async () => {
  await ui.startFromForm('cptRun', 'cpt/empty', {})
  await ui.tab('User Metadata')
  await ui.detailsSay(/Running/)
  await ui.page.getByRole('button', { name: 'Request Cancellation' }).click()
  await ui.page.locator('dialog[open]').getByTestId('confirm-modal-button').click()
  await ui.statusIs('Canceled')
})

test('a wrong input ends at once and the page lists every problem by path', async () => {
  await ui.startFromForm('cptRun', 'cpt/wrong', { training: { peakLr: -1 }, pressets: 'quickstart', seed: 'seven' })
  await ui.statusIs('Failed')
  await ui.page.getByText('3 problems in the input').first().waitFor()
  const text = await ui.page.getByRole('main').innerText()
  for (const path of ['training.peakLr', 'pressets', 'seed']) expect(text).toContain(`${path}: expected`)
  await ui.picture('wrong-input')
})

test('a parked run says what to do, and goes on when just that is pasted into the page’s own dialog', async () => {
  await ui.startFromForm('cptRun', 'cpt/parked', smallRun({ name: 'parked', corpus: { ...smallRun().corpus, maxQuarantineRatio: 0 } }))
  await ui.tab('User Metadata')
  const text = await ui.detailsSay(/Parked: ingest/)
  expect(text).toMatch(/\d+ of \d+ lines .* could not be read, allowed are 0 %/)
  expect(text).toContain('Send an Update')
  await ui.picture('parked-run')
  const decision = JSON.parse(await ui.details().locator('pre').first().innerText()) as object

  await ui.sendUpdate('resolveFailure', { ...decision, patch: { request: { maxQuarantineRatio: 0.1 } }, reason: 'known dirt' }, 'resolve-dialog')
  await ui.statusIs('Completed', runMs)
})
