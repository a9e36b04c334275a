import { DryTrainInput } from '@cpt/contracts/dry-train'
import { ModelTransferInput } from '@cpt/contracts/model-transfer'
import { z } from 'zod'
import { startable } from './startable.ts'

const inputs = { cptRun: startable.cptRun.input, almrLrSweep: startable.almrLrSweep.input, corpusPreparation: startable.corpusPreparation.input, modelTransfer: ModelTransferInput, dryTrain: DryTrainInput }

/** Prints the JSON Schema of a workflow's input, for editors and other programs. */
export const schema = (workflow: keyof typeof inputs): void => void process.stdout.write(`${JSON.stringify(z.toJSONSchema(inputs[workflow], { io: 'input' }), null, 2)}\n`)
