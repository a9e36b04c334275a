import { startAndWatch, type StartFlags } from '../run/start.ts'

export const sweep = (file: string | undefined, flags: StartFlags): Promise<void> => startAndWatch('almrLrSweep', file, flags)
