import { startAndWatch, type StartFlags } from './start.ts'

export const run = (file: string | undefined, flags: StartFlags): Promise<void> => startAndWatch('cptRun', file, flags)
