import { CptRunInput } from '@cpt/contracts/cpt-run'
import { z } from 'zod'

/** Prints the JSON Schema of a run's input, for editors and other programs. */
export const schema = (): void => void process.stdout.write(`${JSON.stringify(z.toJSONSchema(CptRunInput, { io: 'input' }), null, 2)}\n`)
