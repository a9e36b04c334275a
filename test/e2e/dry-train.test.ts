import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DryTrainOutcome } from '@cpt/contracts/dry-train'
import { controlQueue } from '@cpt/contracts/ids'
import { cpt } from '../harness/cli.ts'
import { pageOf } from '../harness/runs.ts'
import { briefRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { nothingLeft } from '../harness/store.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

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

/** The list follows what happened a moment later. */
const listed = (line: RegExp): Promise<boolean> => until(`a line ${String(line)} of the list`, async () => line.test((await cpt(system, 'status')).stdout))

test('cpt train --dry prints memory, speed, stall and time of the real placement, and its page shows the same', async () => {
  const said = await cpt(system, 'train', file, '--dry', '4')
  expect(said).toMatchObject({ exitCode: 0, stderr: '' })
  for (const figure of [/memory peak +\d+\.\d+ MB/, /speed +.* tokens\/s/, /a save +training stands still for \d/, /a load +\d/, /steps +4 +\d/, /saves +3 beside it, 2 waited for +\d/, /starts: .* 1 +\d/, /evaluations +1 of unknown size +not counted/, /in all +\d/, /the run's .* tokens .* take .*without evaluations/]) expect(said.stdout).toMatch(figure)
  const page = await pageOf(system.client.workflow.getHandle(idIn(said.stdout)))
  expect(page).toMatch(/memory peak, largest of 1 \| \d+\.\d+ GB/)
  expect(page).toMatch(/\| tokens\/s \| \d+/)
  expect(page).toMatch(/\| in all, without evaluations \| \d/)
  const id = idIn(said.stdout)
  await listed(new RegExp(`^ +${id} +completed +dry-train `, 'm'))
  const words = said.stdout.slice(said.stdout.indexOf('  4 steps of')).trimEnd()
  for (const again of ['status', 'watch']) {
    const shown = await cpt(system, again, id)
    expect(shown.stdout).toContain(words)
    expect(shown.stdout).toMatch(/^✓ dry-train .*tokens\/s/m)
  }
  expect(JSON.parse((await cpt(system, 'status', id, '--json')).stdout)).toMatchObject({ id, type: 'dryTrain', status: 'COMPLETED', result: { plannedSteps: 4 } })
  await nothingLeft(system.storeDir)
})

test('a dry training that runs is listed, and shows its phase, step and time to go', async () => {
  const handle = await system.client.workflow.start('dryTrain', { workflowId: 'dry/long', taskQueue: controlQueue, args: [{ run: briefRun(), steps: 10_000, evaluationTokens: 1000 }] })
  const shown = await until('it to tell its time to go', async () => [(await cpt(system, 'status', 'long')).stdout].find((text) => text.includes('ETA')) ?? null)
  expect(shown).toMatch(/^dry\/long {2}running, running, 0 recoveries$/m)
  expect(shown).toMatch(/^ {2}dry-train {2}train {2}step \d+ {2}\d+% {2}loss \d+\.\d+ {2}.* tokens\/s {2}ETA /m)
  await listed(/^ +dry\/long +running +dry-train /m)
  await handle.cancel()
  await expect(handle.result()).rejects.toThrow('cancelled')
  expect((await cpt(system, 'status', 'long')).stdout).toMatch(/^dry\/long {2}cancelled/m)
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
