import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { RunProgress } from '@cpt/contracts/cpt-run'
import { smallSweep } from '../harness/small-sweep.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { parkFirstTraining, startSweep, trainKey, trialOf } from '../harness/sweeps.ts'
import type { System } from '../harness/system.ts'
import { openUi, type Ui } from '../harness/ui.ts'
import { until } from '../harness/until.ts'

const sweepMs = 600_000
const batch = 4096

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

test('the form starts a sweep; its page tells its trials and ends with the verdict in words and the report', async () => {
  await ui.startFromForm('almrLrSweep', 'sweep/from-the-ui', smallSweep({ name: 'from-the-ui' }))
  await ui.tab('User Metadata')
  await ui.detailsSay(/trial-\d/, 300)
  await ui.picture('sweep-running')
  await ui.statusIs('Completed', sweepMs)
  const text = await ui.detailsSay(/Report: /)
  expect(text).toMatch(/Chosen: ALMR|Nothing is feasible/)
  expect(text).toMatch(/trial-7\s+ALMR 0\.5, LR 0\.001, seed 2: added [\d.]+, retained [\d.]+ nats\/token\s+done/)
  expect(text).toMatch(/Budget: \d+ GPU-seconds spent, 0 reserved, no limit/)
  await ui.picture('sweep-page')
})

test('a wrong grid ends at once with every problem by path', async () => {
  await ui.startFromForm('almrLrSweep', 'sweep/wrong', { grid: { almr: [1.5], peakLrs: [] }, paralel: 2 })
  await ui.statusIs('Failed')
  await ui.page.getByText('3 problems in the input').first().waitFor()
  const text = await ui.page.getByRole('main').innerText()
  for (const path of ['grid.almr.0', 'grid.peakLrs', 'paralel']) expect(text).toContain(`${path}: expected`)
})

test('a parked trial is told on the page of its sweep, with the way to its own, where the update that is shown there lets it go on', async () => {
  const input = smallSweep({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [9] }, tokensPerTrial: 40 * batch, run: { ...smallSweep().run, placement: { train: { threads: 1, batchTokens: batch, checkpointEverySteps: 1000 } } } })
  const { index } = await parkFirstTraining(system, () => startSweep(system, input, 'sweep/parked'))
  const trial = trialOf(system, { workflowId: 'sweep/parked' }, index)
  await until('the other trial to be over', async () => (await system.client.workflow.getHandle('sweep/parked').query<RunProgress>('progress')).status === 'parked', 300)

  await ui.goTo('sweep/parked')
  await ui.tab('User Metadata')
  const text = await ui.detailsSay(/Waits for a person/)
  expect(text).toContain(`npx cpt resolve ${trial.workflowId} --stage ${trainKey} --park 1 --action retry`)
  await ui.picture('sweep-parked-trial')
  const decision = JSON.parse(await ui.details().locator('pre').first().innerText()) as object
  const way = await ui.details().getByRole('link', { name: 'its page' }).getAttribute('href')
  expect(way).toContain(encodeURIComponent(trial.workflowId))

  await ui.page.goto(new URL(way ?? '', ui.page.url()).href)
  await ui.sendUpdate('resolveFailure', { ...decision, reason: 'killed by a test' }, 'trial-resolve-dialog')
  await ui.statusIs('Completed', sweepMs)
  await ui.goTo('sweep/parked')
  await ui.statusIs('Completed', sweepMs)
})
