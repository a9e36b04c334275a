import { randomUUID } from 'node:crypto'
import { DryTrainOutcome } from '@cpt/contracts/dry-train'
import { CliError } from '../cli-error.ts'
import { readConfig } from '../config.ts'
import { connect, runPage } from '../connect.ts'
import { interruption } from '../interruption.ts'
import { readInput } from '../run/run-input.ts'
import { failureOf } from '../run/ending.ts'
import { screen } from '../run/screen.ts'
import { watch } from '../run/watch.ts'
import { dryWords } from './dry-words.ts'

export interface TrainFlags {
  dry: number
  set?: string[]
  evaluationTokens?: number
  json?: boolean
  state?: string
}

/** Trains some steps of a run's training on synthetic tokens, with the run's placement, and prints what it takes. */
export const train = async (file: string | undefined, flags: TrainFlags): Promise<void> => {
  const input = readInput('cptRun', file, flags.set ?? [], undefined)
  const config = readConfig({ stateDir: flags.state })
  const session = await connect(config)
  try {
    const workflowId = `dry/${input.name}-${randomUUID().slice(0, 8)}`
    await session.client.workflow.start('dryTrain', { workflowId, taskQueue: session.taskQueue, args: [{ run: input, steps: flags.dry, ...(flags.evaluationTokens === undefined ? {} : { evaluationTokens: flags.evaluationTokens }) }], staticSummary: `${input.name}, dry` })
    // JSON stands alone on the output
    const beside = flags.json === true ? process.stderr : process.stdout
    const say = (text: string) => void beside.write(`${text}\n`)
    say(`started ${workflowId}\n${runPage(session, workflowId) ?? ''}`)
    const ending = await watch(session, workflowId, workflowId, interruption(), screen(beside))
    if (ending.how === 'interrupted') return say(`${workflowId} goes on; \`npx cpt watch ${workflowId}\` follows it, \`npx cpt cancel ${workflowId}\` ends it`)
    const value: unknown = await session.client.workflow.getHandle(workflowId).result().catch((error: unknown) => { throw failureOf(error, workflowId, ending.status, runPage(session, workflowId)) })
    const outcome = DryTrainOutcome.safeParse(value)
    if (!outcome.success) throw new CliError('failed', `${workflowId} ended with something else than figures`, 'Are worker and CLI of the same version?')
    process.stdout.write(flags.json === true ? `${JSON.stringify(outcome.data)}\n` : `\n${dryWords(outcome.data)}\n`)
  } finally {
    await session.close()
  }
}
