import { fileURLToPath } from 'node:url'
import { loadConfig } from '@cpt/activities/config'
import { sweepDrafts } from '@cpt/activities/artifact-store/drafts'
import { openFailpoints } from '@cpt/activities/failpoint'
import { withLostAnswers } from '@cpt/activities/lost-answers'
import { Connection } from '@temporalio/client'
import { NativeConnection, Runtime, type LogLevel } from '@temporalio/worker'
import { pino } from 'pino'
import { connectionOptions } from './connect.ts'
import { createDeps, createWorkers } from './create-workers.ts'
import { scheduleReaper } from './schedules.ts'

const config = loadConfig()
const log = pino({ level: config.logLevel, serializers: { err: pino.stdSerializers.err, error: pino.stdSerializers.err } }, pino.destination(2))

Runtime.install({
  logger: {
    log: (level: LogLevel, message: string, meta?: unknown) => { log[level === 'TRACE' ? 'trace' : (level.toLowerCase() as 'debug' | 'info' | 'warn' | 'error')](meta ?? {}, message) },
    trace: (message, meta) => { log.trace(meta ?? {}, message) },
    debug: (message, meta) => { log.debug(meta ?? {}, message) },
    info: (message, meta) => { log.info(meta ?? {}, message) },
    warn: (message, meta) => { log.warn(meta ?? {}, message) },
    error: (message, meta) => { log.error(meta ?? {}, message) },
  },
})

const options = await connectionOptions(config)
const native = await NativeConnection.connect(options)
const connection = await Connection.connect(options)
openFailpoints(config.failpoints)
const deps = createDeps(config, connection, log)
const workers = await createWorkers(native, config.lostAnswers === null ? deps : withLostAnswers(deps, config.lostAnswers), { codePath: fileURLToPath(new URL('workflows.js', import.meta.url)) })
const swept = await sweepDrafts(config.workDir)
if (swept > 0) log.info({ swept }, 'removed what killed processes had begun to write')
// a server that forbids schedules, or is away just now, keeps nobody from working
await scheduleReaper(deps.client, config).catch((err: unknown) => { log.warn({ err }, 'the reaper is not on its schedule: jobs of terminated runs end by their lease') })
const running = workers.map((w) => w.run())
// whoever started this process waits for the line
process.stdout.write(`${JSON.stringify({ ready: true, pid: process.pid, queues: config.queues, namespace: config.temporal.namespace })}\n`)
try {
  await Promise.all(running)
} finally {
  await connection.close()
  await native.close()
}
