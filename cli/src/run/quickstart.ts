import type { Config } from '@cpt/activities/config'
import { runWorkflowId } from '@cpt/contracts/ids'
import { exitCodes } from '../cli-error.ts'
import { namedServer, readConfig } from '../config.ts'
import { connect, runPage } from '../connect.ts'
import { interruption } from '../interruption.ts'
import { startDetached } from '../up/start-detached.ts'
import { startUp } from '../up/start-up.ts'
import { runningUp, type UpRecord } from '../up/up-record.ts'
import { tellEnding } from './ending.ts'
import { start } from './start.ts'
import { watch } from './watch.ts'

export interface QuickstartFlags {
  keep?: boolean
  preset: 'quickstart'
  state?: string
}

interface Surroundings {
  record: UpRecord
  /** Whether this command started them, and so stops them. */
  own: boolean
  stop(): Promise<void>
}

const say = (line: string): void => void process.stdout.write(`${line}\n`)

const surroundings = async (config: Config, keep: boolean, cancel: AbortSignal): Promise<Surroundings> => {
  const running = runningUp(config.stateDir)
  const nothing = () => Promise.resolve()
  if (running !== null) {
    say('server, worker and report pages run already: attached to them')
    return { record: running, own: false, stop: nothing }
  }
  if (keep) {
    say('starting server, worker and report pages; they stay until `npx cpt down`')
    return { record: await startDetached(config), own: false, stop: nothing }
  }
  const up = await startUp(config, { ports: {}, say, cancel })
  return { record: up.record, own: true, stop: () => up.stop() }
}

/** The whole lifecycle on the sample corpus, with everything it needs started before and stopped after. */
export const quickstart = async (flags: QuickstartFlags): Promise<void> => {
  const config = readConfig({ stateDir: flags.state })
  const cancel = interruption()
  const around = await surroundings(config, flags.keep === true, cancel)
  const { record } = around
  try {
    const session = await connect(config, record)
    try {
      const workflowId = runWorkflowId(flags.preset)
      await start(session, 'cptRun', workflowId, { preset: flags.preset }, 'attach')
      say(`\n${workflowId}\nrun page ${runPage(session, workflowId) ?? 'none'}\nreports  ${record.reportsUrl}\n`)
      const ending = await watch(session, workflowId, flags.preset, cancel)
      if (ending.how === 'interrupted') {
        process.exitCode = exitCodes.interrupted
        say(`\nstopped watching ${workflowId}; what is committed is kept, and the same command goes on from there`)
      } else await tellEnding(session, config, workflowId, ending)
    } finally {
      await session.close()
    }
  } finally {
    if (around.own) say('\nstopping worker, jobs, report pages and server')
    await around.stop()
    const reopen = around.own ? `reopen the pages with \`npx cpt up\`${namedServer() === null && record.uiUrl !== null ? `: ${record.uiUrl} and ${record.reportsUrl}` : ''}` : `still running: ${record.uiUrl ?? record.address} and ${record.reportsUrl}; \`npx cpt down\` stops them`
    say(reopen)
  }
}
