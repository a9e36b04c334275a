import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findHome } from '@cpt/activities/config'
import { TrainingPlan } from '@cpt/activities/plan-training'
import { afterAll, beforeAll, expect, test } from 'vitest'

const home = findHome()
const example = (name: string): string => join(home, 'samples', `${name}.yaml`)
let folder: string
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), 'cpt-plan-'))))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Said {
  exitCode: number
  stdout: string
  stderr: string
}
const cptPlan = (...args: string[]): Promise<Said> =>
  new Promise((resolve, reject) => {
    const env = { PATH: process.env['PATH'], HOME: process.env['HOME'], CPT_STATE: folder }
    const child = execFile(process.execPath, [join(home, 'node_modules', 'tsx', 'dist', 'cli.mjs'), join(home, 'cli', 'src', 'main.ts'), 'plan', ...args], { env }, (error, stdout, stderr) => {
      if (child.exitCode === null) reject(error ?? new Error('cpt plan has no exit code'))
      else resolve({ exitCode: child.exitCode, stdout, stderr })
    })
  })
const machine = { timeout: 120_000 }

test('what is printed for 8B on 8 GPUs has its steps, parts and time, and ends well', machine, async () => {
  const { exitCode, stdout, stderr } = await cptPlan(example('llama-3-8b'))
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' })
  expect(stdout).toContain('8.03G parameters, bfloat16')
  expect(stdout).toContain('8 processes, one copy of the model over all on h100: 64 sequences a rank and step')
  expect(stdout).toMatch(/optimizer moments +8\.03 GB/)
  expect(stdout).toMatch(/fits: \d+\.\d\d GB of 80\.00 GB/)
  expect(stdout).toMatch(/at an assumed MFU of 40 % of 989 TFLOP\/s: .* tokens\/s, \d+\.\d days/)
})

test('what does not fit ends with 1 and a change that makes it fit, in JSON too', machine, async () => {
  const large = ['--set', 'placement.train.batchTokens=65536']
  const said = await cptPlan(example('llama-3-8b'), ...large)
  expect(said.exitCode).toBe(1)
  expect(said.stdout).toMatch(/does not fit: \d+\.\d\d GB of 80\.00 GB/)
  const json = await cptPlan(example('llama-3-8b'), ...large, '--json')
  expect(json.exitCode).toBe(1)
  const made = TrainingPlan.parse(JSON.parse(json.stdout))
  expect(made.fits).toBe(false)
  const [first = ''] = made.advice
  expect(said.stdout).toContain(first)
  const change = /^(placement\.train\.batchTokens) (\d+):/.exec(first)
  const mended = await cptPlan(example('llama-3-8b'), '--set', `${change?.[1] ?? ''}=${change?.[2] ?? ''}`, '--json')
  expect(TrainingPlan.parse(JSON.parse(mended.stdout)).fits).toBe(true)
})

test('a bad input is refused with every problem, by path, and the way out', machine, async () => {
  writeFileSync(join(folder, 'bad.yaml'), 'training: { globalBatchTokens: 9000 }\nbase: { model: samples:nowhere/ }\n')
  const misfit = await cptPlan(join(folder, 'bad.yaml'))
  expect(misfit).toMatchObject({ exitCode: 2, stdout: '' })
  expect(misfit.stderr).toContain('training.globalBatchTokens: expected a multiple of training.sequenceTokens (256), got 9000')
  const nowhere = await cptPlan('--set', 'base.model=samples:nowhere/')
  expect(nowhere).toMatchObject({ exitCode: 2, stdout: '' })
  expect(nowhere.stderr).toContain('base.model: expected a folder with a config.json, got samples:nowhere/')
  expect((await cptPlan('--device', 'abacus')).stderr).toContain('Allowed choices are h200, h100')
})
