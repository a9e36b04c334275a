import { execFile } from 'node:child_process'
import { cliProgram } from '@cpt/cli/config'
import type { System } from './system.ts'

export interface Said {
  exitCode: number
  stdout: string
  stderr: string
}

/** Runs `cpt` as a person does in a terminal, against the server of a system under test. */
export const cpt = ({ config, server, stateDir }: System, ...args: string[]): Promise<Said> =>
  new Promise((resolve, reject) => {
    const env = { PATH: process.env['PATH'], HOME: process.env['HOME'], CPT_STATE: stateDir, TEMPORAL_ADDRESS: server.address, TEMPORAL_NAMESPACE: server.namespace, NO_COLOR: '1' }
    const child = execFile(process.execPath, [cliProgram(config), ...args], { env, timeout: 120_000 }, (error, stdout, stderr) => {
      if (child.exitCode === null) reject(error ?? new Error(`cpt ${args.join(' ')} has no exit code`))
      else resolve({ exitCode: child.exitCode, stdout, stderr })
    })
  })
