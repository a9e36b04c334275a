import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DryTrainOutcome } from '@cpt/contracts/dry-train'
import { cpt } from '../harness/cli.ts'
import { pageOf } from '../harness/runs.ts'
import { briefRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { nothingLeft } from '../harness/store.ts'
import type { System } from '../harness/system.ts'

let system: System
let folder = ''
let file = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cpt-dry-'))
  file = join(folder, 'small.yaml')
  await writeFile(file, JSON.stringify(briefRun()))
  system = await startSmallSystem()
})
afterAll(() => system.stop().finally(() => rm(folder, { recursive: true, force: true })))

const idIn = (text: string): string => /^started (dry\/\S+)$/m.exec(text)?.[1] ?? ''

test('cpt train --dry prints memory, speed, stall and time of the real placement, and its page shows the same', async () => {
  const said = await cpt(system, 'train', file, '--dry', '4')
  expect(said).toMatchObject({ exitCode: 0, stderr: '' })
  for (const figure of [/memory peak +\d+\.\d+ MB/, /speed +.* tokens\/s/, /a save +training stands still for \d/, /a load +\d/, /the run's .* tokens .* take /]) expect(said.stdout).toMatch(figure)
  const page = await pageOf(system.client.workflow.getHandle(idIn(said.stdout)))
  expect(page).toMatch(/memory peak, largest of 1 \| \d+\.\d+ GB/)
  expect(page).toMatch(/\| tokens\/s \| \d+/)
  await nothingLeft(system.storeDir)
})

test('two processes measure together, and every ask measures anew', async () => {
  const ask = () => cpt(system, 'train', file, '--dry', '3', '--set', 'placement.train.processesPerNode=2', '--json')
  const [first, second] = [await ask(), await ask()]
  expect([first.exitCode, second.exitCode]).toEqual([0, 0])
  const [a, b] = [first, second].map((said) => DryTrainOutcome.parse(JSON.parse(said.stdout)).figures)
  expect(a).toMatchObject({ processes: 2, steps: 3 })
  expect(a?.memoryPeakBytes).toHaveLength(2)
  expect(b?.tokens).toBe(a?.tokens)
  expect(b?.secondsPerStep).not.toBe(a?.secondsPerStep)
  await nothingLeft(system.storeDir)
})

test('an input that is no run is refused before anything starts', async () => {
  const refused = await cpt(system, 'train', file, '--dry', '4', '--set', 'training.globalBatchTokens=100')
  expect(refused.exitCode).toBe(2)
  expect(refused.stderr).toContain('training.globalBatchTokens')
  expect(await cpt(system, 'train', file)).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("required option '--dry <steps>'") as unknown })
})
