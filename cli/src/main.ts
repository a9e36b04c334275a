import { Argument, Command, InvalidArgumentError, Option } from 'commander'
import { CliError, exitCodes } from './cli-error.ts'
import { ageMs } from './gc/age.ts'
import type { InspectFlags } from './corpus/inspect.ts'
import type { GcFlags } from './gc/gc.ts'
import { deviceNames } from './plan/device-names.ts'
import type { PlanFlags } from './plan/plan.ts'
import { plainText } from './plain-text.ts'
import type { QuickstartFlags } from './run/quickstart.ts'
import type { ResolveFlags } from './run/resolve.ts'
import type { StartFlags } from './run/start.ts'
import type { ScheduleFlags } from './schedule/apply.ts'
import type { BackfillFlags } from './schedule/operate.ts'
import type { TrainFlags } from './train/train.ts'
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
const whole = (text: string): number => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) throw new InvalidArgumentError('expected a whole number from 0')
  return value
}
const moment = (text: string): Date => {
  const at = new Date(text)
  if (Number.isNaN(at.getTime())) throw new InvalidArgumentError('expected a day or a time such as 2026-01-31 or 2026-01-31T02:00:00Z (without a zone: a day is UTC)')
  return at
}
const gpuSeconds = (text: string): number | null => {
  const value = Number(text)
  if (text === 'none') return null
  if (!(Number.isFinite(value) && value > 0)) throw new InvalidArgumentError('expected a positive number of GPU-seconds, or none')
  return value
}
const share = (text: string): number => {
  const value = Number(text)
  if (!(value > 0 && value <= 1)) throw new InvalidArgumentError('expected a share from 0 to 1, as 0.4')
  return value
}
const teraflops = (text: string): number => {
  const value = Number(text)
  if (!(Number.isFinite(value) && value > 0)) throw new InvalidArgumentError('expected a positive number of TFLOP/s')
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
A run or sweep is named by its name (my-run) or its workflow id (cpt/my-run, sweep/my-sweep, sweep/my-sweep/trial-3).

Exit codes: 0 done · 1 the run or command failed · 2 wrong usage or input · 3 no server answers · 4 exists already · 5 something is missing · 130 interrupted

Examples:
  cpt quickstart                        the whole lifecycle on the sample corpus
  cpt up                                server, worker and report pages until Ctrl-C
  cpt run my-run.yaml --set seed=7      start a run and watch it
  cpt plan my-run.yaml                  steps, memory and time of its training, before it runs
  cpt train my-run.yaml --dry 20        memory, speed and time of its training, measured
  cpt sweep my-sweep.yaml               try ALMR × learning rate on a proxy, and choose
  cpt resolve my-run --action retry     go on after a failure was mended
  cpt corpus inspect my-run             what became of documents, and why
  cpt schedule apply                    put the schedules of infra/schedules on the server
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
  .action(async (file: string | undefined, flags: StartFlags) => (await import('./run/run.ts')).run(file, flags))

program
  .command('plan')
  .description('what the training of a run takes: steps, memory by part, whether it fits, and how long; starts nothing')
  .argument('[file]', 'YAML or JSON with any part of a run; what it leaves out comes from the preset')
  .option('--set <path=value>', 'set one field, e.g. placement.train.batchTokens=16384 (repeatable)', each)
  .addOption(new Option('--device <name>', 'kind of device (default: h100 where the placement has GPUs, else cpu)').choices(deviceNames))
  .addOption(new Option('--mfu <share>', 'utilisation of the peak to assume').argParser(share).default(0.4))
  .option('--peak-tflops <number>', 'peak of one device, instead of the one known by its name', teraflops)
  .addOption(new Option('--evaluation-tokens <n>', 'tokens of the validation sets, so that evaluations are counted: the report of an earlier run tells them').argParser(positive))
  .option('--json', 'print JSON, sizes in bytes')
  .addOption(state())
  .addHelpText(
    'after',
    `
Ends with 1 where it does not fit, and says what to change. docs/training.md has the formulas.

Examples:
  cpt plan samples/llama-3-8b.yaml                                         8B on 8 × 80 GB
  cpt plan samples/llama-3-70b.yaml --set placement.train.nodes=16         70B on 128
  cpt plan my-run.yaml --device h200 --mfu 0.5`,
  )
  .action(async (file: string | undefined, flags: PlanFlags) => (await import('./plan/plan.ts')).plan(file, flags))

program
  .command('train')
  .description('try the training of a run on its real placement: some steps on synthetic tokens, one save, one load, one evaluation')
  .argument('[file]', 'YAML or JSON with any part of a run; what it leaves out comes from the preset')
  .addOption(new Option('--dry <steps>', 'how many steps').argParser(positive).makeOptionMandatory())
  .option('--set <path=value>', 'set one field, e.g. placement.train.batchTokens=16384 (repeatable)', each)
  .addOption(new Option('--evaluation-tokens <n>', 'tokens of the validation sets, so that evaluations are counted: the report of an earlier run tells them').argParser(positive))
  .option('--json', 'print the figures as JSON')
  .addOption(state())
  .addHelpText(
    'after',
    `
Prints memory peak, tokens/s, how long a save stalls training, and how long the whole run will take. It goes through the
same queue, runner, lease and cancel as a run. Its checkpoint is removed again.

Example:
  cpt train my-run.yaml --dry 20`,
  )
  .action(async (file: string | undefined, flags: TrainFlags) => (await import('./train/train.ts')).train(file, flags))

program
  .command('sweep')
  .description('start a sweep of ALMR × learning rate and watch it')
  .argument('[file]', 'YAML or JSON with any part of a sweep; what it leaves out comes from the preset')
  .option('--set <path=value>', 'set one field, e.g. grid.seeds=[1,2,3] or run.seed=7 (repeatable)', each)
  .option('--name <name>', 'name of the sweep; its workflow id is sweep/<name>, its trials are sweep/<name>/trial-<index>')
  .option('--detach', 'start it and return')
  .addOption(state())
  .action(async (file: string | undefined, flags: StartFlags) => (await import('./sweep/sweep.ts')).sweep(file, flags))

program
  .command('budget')
  .description('set what a sweep may spend; over it no new trial begins')
  .argument('<sweep>')
  .argument('<gpu-seconds>', 'a number, or none for no limit; on a CPU a GPU-second is a second of a job', gpuSeconds)
  .addOption(state())
  .action(async (named: string, budget: number | null, flags: StateFlag) => (await import('./sweep/budget.ts')).budget(named, budget, flags))

program
  .command('approve')
  .description('let a transfer train its target, or refuse it; the evidence is on its page')
  .argument('<transfer>')
  .option('--refuse', 'end the transfer without a run')
  .option('--reason <text>', 'goes on record; needed where the confirmation does not hold', '')
  .addOption(state())
  .action(async (named: string, flags: StateFlag & { refuse?: boolean; reason: string }) => (await import('./sweep/approve.ts')).approve(named, flags))

program.command('status').description('list runs, sweeps and trials, or show one').argument('[id]').option('--json', 'print JSON').addOption(state()).action(async (id: string | undefined, flags: StateFlag & { json?: boolean }) => (await import('./run/status.ts')).status(id, flags))
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
const corpus = program.command('corpus').description('what became of the documents of a corpus')
corpus.command('list').description('the newest corpus of each name').option('--json', 'print JSON').addOption(state()).action(async (flags: StateFlag & { json?: boolean }) => (await import('./corpus/list.ts')).list(flags))
corpus
  .command('inspect')
  .description('show documents with all that was decided about them, and why')
  .argument('<corpus|run>', 'name of a committed corpus, or name or workflow id of a run')
  .argument('[document]', 'its name, <source>:<id, or line>, or its place, @<shard>/<row>; without it, a sample')
  .option('--dropped-by <stage>', 'only what a stage dropped, as filter, or for one reason, as filter/too-short')
  .option('--kept', 'only what no stage dropped')
  .option('--source <name>', 'only documents of this source')
  .option('--language <code>', 'only documents in this language')
  .addOption(new Option('--sample <n>', 'how many documents').argParser(positive).default(5))
  .addOption(new Option('--seed <n>', 'another seed, another sample').argParser(whole).default(0))
  .option('--text', 'the whole text instead of its beginning')
  .option('--json', 'print JSON')
  .addOption(state())
  .addHelpText(
    'after',
    `
Examples:
  cpt corpus inspect web news:https://example.org/a      one document of the corpus web
  cpt corpus inspect my-run dirty:17                     line 17 of the source dirty, quarantined or not
  cpt corpus inspect my-run --dropped-by filter/garbled  five of those that were dropped as garbled`,
  )
  .action(async (named: string, document: string | undefined, flags: InspectFlags) => (await import('./corpus/inspect.ts')).inspect(named, document, flags))

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

const schedule = program
  .command('schedule')
  .description('schedules as code: those of infra/schedules on the server')
  .addHelpText(
    'after',
    `
A file says which workflow begins when, with which input, and what happens to overlaps and missed times; docs/schedules.md
has an example. An apply may be repeated: what is unchanged stays untouched, and whether a schedule is paused, with its
note, is the operator's alone. Nothing is deleted here: list marks what is in no file, and the UI or
\`temporal schedule delete\` removes it.`,
  )
const dir = () => new Option('--dir <folder>', 'folder of schedules instead of infra/schedules in the checkout')
schedule.command('apply').description('make the schedules of the server what the files say; without files, all of the folder').argument('[file...]').addOption(dir()).addOption(state()).action(async (files: string[], flags: ScheduleFlags) => (await import('./schedule/apply.ts')).apply(files, flags))
schedule.command('list').description('all schedules: when they run next, and whether they are what their file says').option('--json', 'print JSON').addOption(dir()).addOption(state()).action(async (flags: ScheduleFlags & { json?: boolean }) => (await import('./schedule/list.ts')).list(flags))
schedule.command('pause').description('begin nothing until resume').argument('<id>').requiredOption('--reason <text>', 'goes on record as the note of the schedule').addOption(state()).action(async (id: string, flags: StateFlag & { reason: string }) => (await import('./schedule/operate.ts')).pause(id, flags))
schedule.command('resume').description('go on with a paused schedule').argument('<id>').option('--reason <text>', 'goes on record as the note of the schedule', '').addOption(state()).action(async (id: string, flags: StateFlag & { reason: string }) => (await import('./schedule/operate.ts')).resume(id, flags))
schedule.command('trigger').description('start one run now, as the policy on overlap allows').argument('<id>').addOption(state()).action(async (id: string, flags: StateFlag) => (await import('./schedule/operate.ts')).trigger(id, flags))
schedule
  .command('backfill')
  .description('take the times of a span that has passed, all of them now')
  .argument('<id>')
  .requiredOption('--from <time>', 'first moment of the span, e.g. 2026-01-31 or 2026-01-31T02:00:00Z', moment)
  .requiredOption('--to <time>', 'last moment of the span', moment)
  .addOption(new Option('--overlap <policy>', 'instead of the policy of the schedule').choices(['SKIP', 'BUFFER_ONE', 'BUFFER_ALL', 'CANCEL_OTHER', 'ALLOW_ALL']))
  .addOption(state())
  .action(async (id: string, flags: BackfillFlags) => (await import('./schedule/operate.ts')).backfill(id, flags))

program
  .command('schema')
  .description('JSON Schema of the input of a workflow')
  .addArgument(new Argument('[workflow]', 'which one').choices(['cptRun', 'almrLrSweep', 'corpusPreparation', 'modelTransfer', 'dryTrain']).default('cptRun'))
  .action(async (workflow: 'cptRun' | 'almrLrSweep' | 'corpusPreparation' | 'modelTransfer' | 'dryTrain') => { (await import('./schema.ts')).schema(workflow) })

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
