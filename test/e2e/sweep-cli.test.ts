import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RunProgress } from '@cpt/contracts/cpt-run'
import { cpt } from '../harness/cli.ts'
import { smallSweep } from '../harness/small-sweep.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { nothingLeft } from '../harness/store.ts'
import { parkFirstTraining } from '../harness/sweeps.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

let system: System
let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cpt-sweep-cli-'))
  system = await startSmallSystem()
})
afterAll(() => system.stop().finally(() => rm(folder, { recursive: true, force: true })))

test('cpt sweep starts a sweep; its trials are listed, one that failed is resolved by its id, and watching it tells the verdict', async () => {
  const file = join(folder, 'cli.yaml')
  const { run, ...sweepInput } = smallSweep({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [71] }, tokensPerTrial: 40 * 4096 })
  const placement = { ...run?.placement, train: { threads: 1, batchTokens: 4096, checkpointEverySteps: 1000 } }
  await writeFile(file, JSON.stringify({ ...sweepInput, run: { ...run, placement } }))

  const wrong = await cpt(system, 'sweep', file, '--set', 'grid.almr=[2]', '--set', 'run.plan=[]')
  expect(wrong.exitCode).toBe(2)
  for (const problem of ['grid.almr.0: expected number to be <=1, got 2', 'run.plan: no such key, got []']) expect(wrong.stderr).toContain(problem)

  const { sweep, index } = await parkFirstTraining(system, async () => {
    const started = await cpt(system, 'sweep', file, '--name', 'cli', '--detach')
    expect(started.stdout).toMatch(/^started sweep\/cli\n/)
    return system.client.workflow.getHandle('sweep/cli')
  })
  expect(await cpt(system, 'sweep', file, '--name', 'cli')).toMatchObject({ exitCode: 4, stderr: expect.stringContaining('sweep/cli is running already') as unknown })
  await until('the sweep to wait for its trial alone', async () => (await sweep.query<RunProgress>('progress')).status === 'parked', 300)
  const trial = `sweep/cli/trial-${index}`
  const list = await until('the trial to be listed', async () => [(await cpt(system, 'status')).stdout].find((text) => text.includes(trial)) ?? null)
  expect(list).toMatch(new RegExp(`^ +sweep/cli .*\\n +${trial} +parked +trial/round-1/train`, 'm'))
  const shown = (await cpt(system, 'status', 'cli')).stdout
  expect(shown).toMatch(new RegExp(`^sweep/cli {2}running, parked`))
  expect(shown).toContain(`npx cpt resolve ${trial} --stage trial/round-1/train --park 1 --action retry`)

  expect((await cpt(system, 'budget', 'cli', '5000')).stdout).toMatch(/^budget set by .*of 5000 GPU-seconds/)
  expect((await cpt(system, 'budget', 'cli', 'none')).stdout).toMatch(/^budget set by .*no limit/)
  expect((await cpt(system, 'budget', 'cli', '-5')).exitCode).toBe(2)

  expect((await cpt(system, 'resolve', trial, '--action', 'retry', '--reason', 'machine is mended')).stdout).toBe('retry accepted for trial/round-1/train, park 1\n')
  const watched = await cpt(system, 'watch', 'cli')
  expect(watched.exitCode).toBe(0)
  expect(watched.stdout).toMatch(/^✓ trial-0 /m)
  expect(watched.stdout).toMatch(/^✓ trial-1 /m)
  expect(watched.stdout).toMatch(/ALMR +peak LR +added, nats\/token +retained +seeds\n/)
  expect(watched.stdout).toMatch(/^sweep {4}complete$/m)
  expect(watched.stdout).toMatch(/^verdict {2}\S+, sha256 [0-9a-f]{64}$/m)
  expect((await cpt(system, 'report', 'cli')).stdout).toContain('index.html')

  const again = await cpt(system, 'sweep', file, '--name', 'cli', '--set', 'whenUnchanged=end')
  expect(again).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^sweep {4}unchanged$/m) as unknown })
  await nothingLeft(system.storeDir)
})
