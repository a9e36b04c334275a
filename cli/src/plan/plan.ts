import { PythonFailed } from '@cpt/activities/ask-python'
import { completeInput, devices, planTraining, Unplannable, usualDevice, type Assumed, type DeviceName, type TrainingPlan } from '@cpt/activities/plan-training'
import type { Config } from '@cpt/activities/config'
import type { CptRunInput, CptRunSpec } from '@cpt/contracts/cpt-run'
import { CliError } from '../cli-error.ts'
import { readConfig } from '../config.ts'
import { plainText } from '../plain-text.ts'
import { readInput } from '../run/run-input.ts'
import { planWords } from './plan-words.ts'

export interface PlanFlags {
  set?: string[]
  device?: DeviceName
  mfu: number
  peakTflops?: number
  evaluationTokens?: number
  json?: boolean
  state?: string
}

/** Prints what the training of a run takes: steps, memory by part of one rank, and time at an assumed utilisation. */
export const plan = async (file: string | undefined, flags: PlanFlags): Promise<void> => {
  const input = readInput('cptRun', file, flags.set ?? [], undefined)
  const config = readConfig({ stateDir: flags.state })
  const spec = await completed(config, input)
  const device = flags.device ?? usualDevice(spec)
  const made = await planned(config, spec, { device: devices[device], mfu: flags.mfu, peakTflops: flags.peakTflops ?? null, evaluationTokens: flags.evaluationTokens ?? null })
  process.stdout.write(flags.json === true ? `${JSON.stringify({ name: spec.name, device, ...made })}\n` : `${planWords(spec, device, made)}\n`)
  if (made.fits === false) process.exitCode = 1
}

/** The whole run that an input means. Throws CliError with every problem of it. */
export const completed = (config: Config, input: CptRunInput): Promise<CptRunSpec> => completeInput(config, input).catch(refuse)

const planned = (config: Config, spec: CptRunSpec, assumed: Assumed): Promise<TrainingPlan> => planTraining(config, spec, assumed).catch(refuse)

const refuse = (error: unknown): never => {
  if (error instanceof Unplannable) throw new CliError('usage', `${error.problems.length === 1 ? 'a problem' : `${error.problems.length} problems`} in the input:\n${error.problems.map((p) => `  ${p.path}: expected ${p.expected}, got ${plainText(p.got)}`).join('\n')}`, '`cpt schema` prints what is expected.')
  if (error instanceof PythonFailed) throw new CliError('usage', plainText(error.message), 'Change the input where it says so; if Python itself is missing, `npx cpt doctor --fix` gets it.')
  throw error
}
