import { Command, InvalidArgumentError, Option } from 'commander'
import { CliError, exitCodes } from './cli-error.ts'
import { ageMs } from './gc/age.ts'
import type { GcFlags } from './gc/gc.ts'
import { plainText } from './plain-text.ts'
import type { QuickstartFlags } from './run/quickstart.ts'
import type { ResolveFlags } from './run/resolve.ts'
import type { UpFlags } from './up/up-flags.ts'

interface StateFlag {
  state?: string
}

const port = (text: string): number => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > 65_535) throw new InvalidArgumentError('expected a port number from 1 to 65535')
  return value
}
const positive = (text: string): number => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a whole number from 1')
  return value
}
const each = (text: string, before: string[] = []): string[] => [...before, text]

const program = new Command('cpt')
  .description('Continual pre-training runs on Temporal: start them, watch them, mend them.')
  .showSuggestionAfterError()
  .addHelpText(
    'after',
    `
Where runs go: the server of a running \`cpt up\`, or the one that TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and TEMPORAL_API_KEY name.
State (database, store, reports, logs): .cpt in the checkout, or CPT_STATE. The store alone: CPT_STORE, a folder or
s3://bucket/prefix (with CPT_S3_ENDPOINT, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
A run is named by its name (my-run) or its workflow id (cpt/my-run).

Exit codes: 0 done · 1 the run or command failed · 2 wrong usage or input · 3 no server answers · 4 exists already · 5 something is missing · 130 interrupted

Examples:
  cpt quickstart                        the whole lifecycle on the sample corpus
  cpt up                                server, worker and report pages until Ctrl-C
  cpt run my-run.yaml --set seed=7      start a run and watch it
  cpt resolve my-run --action retry     go on after a failure was mended
  cpt gc --older-than 30d --apply       free the disk of what nobody wants`,
  )

// before the commands, which inherit it
program.exitOverride((error) => {
  process.exit(error.exitCode === 0 ? 0 : exitCodes.usage)
})

const state = () => new Option('--state <folder>', 'state folder instead of .cpt in the checkout')

program
  .command('quickstart')
  .description('run the whole lifecycle on the sample corpus; starts what is not running and stops it afterwards')
  .option('--keep', 'leave server, worker and report pages running')
  .addOption(new Option('--preset <name>', 'preset to run').choices(['quickstart']).default('quickstart'))
  .addOption(state())
  .action(async (flags: QuickstartFlags) => (await import('./run/quickstart.ts')).quickstart(flags))

program
  .command('up')
  .description('keep server, worker and report pages running until Ctrl-C')
  .option('--json', 'print addresses, namespace, task queue and process numbers as one line of JSON')
  .option('--detach', 'return when they run; `cpt down` stops them')
  .option('--port <port>', 'port of the server', port)
  .option('--ui-port <port>', 'port of the web UI', port)
  .option('--reports-port <port>', 'port of the report pages', port)
  .addOption(state())
  .action(async (flags: UpFlags) => (await import('./up/up.ts')).up(flags))

program.command('down').description('stop what a `cpt up` keeps running').addOption(state()).action(async (flags: StateFlag) => (await import('./up/down.ts')).down(flags))

program
  .command('run')
  .description('start a run and watch it')
  .argument('[file]', 'YAML or JSON with any part of a run; what it leaves out comes from the preset')
  .option('--set <path=value>', 'set one field, e.g. training.peakLr=3e-4 (repeatable)', each)
  .option('--name <name>', 'name of the run; its workflow id is cpt/<name>')
  .option('--detach', 'start it and return')
  .addOption(state())
  .action(async (file: string | undefined, flags: StateFlag & { set?: string[]; name?: string; detach?: boolean }) => (await import('./run/run.ts')).run(file, flags))

program.command('status').description('list runs, or show one').argument('[id]').option('--json', 'print JSON').addOption(state()).action(async (id: string | undefined, flags: StateFlag & { json?: boolean }) => (await import('./run/status.ts')).status(id, flags))
program.command('watch').description('follow a run until it ends').argument('<id>').addOption(state()).action(async (id: string, flags: StateFlag) => (await import('./run/watch-command.ts')).watchCommand(id, flags))

program
  .command('resolve')
  .description('decide what happens to a failed (parked) stage')
  .argument('<id>')
  .addOption(new Option('--action <action>', 'what to do').choices(['retry', 'skip', 'abort']).makeOptionMandatory())
  .option('--stage <key>', 'which stage; may be left out when only one is parked')
  .option('--park <n>', 'which of its parks, so that a late decision does nothing', positive)
  .option('--patch <json>', 'fields to change for the retry: {"request": {…}, "placement": {…}}')
  .option('--reason <text>', 'goes on record', '')
  .addOption(state())
  .action(async (id: string, flags: ResolveFlags) => (await import('./run/resolve.ts')).resolve(id, flags))

program.command('pause').description('pause a run at its next commit').argument('<id>').addOption(state()).action(async (id: string, flags: StateFlag) => (await import('./run/operate.ts')).pause(id, flags))
program.command('resume').description('go on with a paused run').argument('<id>').addOption(state()).action(async (id: string, flags: StateFlag) => (await import('./run/operate.ts')).resume(id, flags))
program.command('cancel').description('save, stop the jobs and end a run').argument('<id>').addOption(state()).action(async (id: string, flags: StateFlag) => (await import('./run/operate.ts')).cancel(id, flags))
program.command('report').description('path and address of a report; without an id, of all').argument('[id]').addOption(state()).action(async (id: string | undefined, flags: StateFlag) => (await import('./run/report.ts')).report(id, flags))
const gc = program
  .command('gc')
  .description('say what nobody wants any more in the store, and remove it')
  .option('--apply', 'remove it; without this, only say what would go')
  .addOption(new Option('--older-than <age>', 'leave what is younger: 7d, 12h, 30m or 0').argParser(ageMs).default(ageMs('7d'), '7d'))
  .option('--pins-only', 'ask no server: keep only what pins, reports and running jobs name')
  .option('--json', 'print JSON')
  .addOption(state())
  .addHelpText(
    'after',
    `
Kept: all that a run needs which the server still knows or whose report is there, all that is pinned, what a running
job works on, and everything that these were made from. A swept result costs only time: who asks for it again makes it.
To let go of a run: delete its report folder (\`cpt report <run>\` says where) and, before its retention is over, its
history (\`temporal workflow delete\`).`,
  )
  .action(async (flags: GcFlags) => (await import('./gc/gc.ts')).gc(flags))
const stateOf = (flags: StateFlag): StateFlag => ({ ...gc.opts<StateFlag>(), ...flags })
gc.command('pin')
  .description('keep a result, or all that a run has committed, whatever becomes of the run')
  .argument('<run|fingerprint>', 'name or workflow id of a run, or at least 8 digits of a fingerprint')
  .requiredOption('--reason <text>', 'goes on record')
  .addOption(state())
  .action(async (named: string, flags: StateFlag & { reason: string }) => (await import('./gc/pin.ts')).pin(named, { ...flags, ...stateOf(flags) }))
gc.command('unpin').description('let go of a pin').argument('<pin>').addOption(state()).action(async (name: string, flags: StateFlag) => (await import('./gc/pin.ts')).unpin(name, stateOf(flags)))
gc.command('pins').description('list what is pinned').addOption(state()).action(async (flags: StateFlag) => (await import('./gc/pin.ts')).pins(stateOf(flags)))

program.command('schema').description('JSON Schema of the input of a run').action(async () => { (await import('./schema.ts')).schema() })

program
  .command('doctor')
  .description('say what is missing and how to get it')
  .option('--json', 'print JSON')
  .option('--fix', 'get what is missing')
  .addOption(state())
  .action(async (flags: StateFlag & { json?: boolean; fix?: boolean }) => (await import('./doctor/doctor.ts')).doctor(flags))

// `cpt status | head`: nobody reads on, so end, and stop first what was started
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.kill(process.pid, 'SIGTERM')
})

try {
  await program.parseAsync()
} catch (error) {
  if (!(error instanceof CliError)) throw error
  process.stderr.write(`cpt: ${plainText(error.message)}\n     ${error.fix.replaceAll('\n', '\n     ')}\n`)
  process.exitCode = exitCodes[error.exit]
}
