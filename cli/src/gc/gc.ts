import { openStore } from '@cpt/activities/artifact-store/open-store'
import { collectGarbage, type GcReport } from '@cpt/activities/gc/collect-garbage'
import { runsOf } from '@cpt/activities/gc/runs'
import { CliError } from '../cli-error.ts'
import { readConfig } from '../config.ts'
import { connect } from '../connect.ts'
import { table } from '../run/table.ts'
import { bytesWords } from './bytes.ts'

export interface GcFlags {
  apply?: boolean
  olderThan: number
  pinsOnly?: boolean
  json?: boolean
  state?: string
}

/** Says what nobody wants any more, and with `apply` removes it. */
export const gc = async (flags: GcFlags): Promise<void> => {
  const config = readConfig({ stateDir: flags.state })
  const store = openStore(config)
  const settings = { olderThanMs: flags.olderThan, apply: flags.apply === true }
  const session = flags.pinsOnly === true ? null : await connect(config).catch(refuse)
  try {
    const report = await collectGarbage({ store, config, runs: session === null ? null : runsOf(session.client, store) }, settings)
    process.stdout.write(flags.json === true ? `${JSON.stringify(report)}\n` : `${gcWords(report, store.place)}\n`)
  } finally {
    await session?.close()
  }
}

const refuse = (error: unknown): never => {
  if (!(error instanceof CliError)) throw error
  throw new CliError(error.exit, `${error.message}: what runs want cannot be known, so nothing is swept`, `${error.fix}\nWithout a server: --pins-only keeps what pins, reports and running jobs name, and nothing else.`)
}

/** The table that a person reads. */
export const gcWords = ({ applied, swept, kept, saved, unreadable }: GcReport, place: string): string => {
  const total = swept.reduce((sum, s) => ({ count: sum.count + s.count, bytes: sum.bytes + s.bytes }), { count: 0, bytes: 0 })
  const row = (what: string, { count, bytes }: { count: number; bytes: number }) => [what, String(count), bytesWords(bytes)]
  return [
    place,
    table([applied ? 'removed' : 'would be removed', 'count', 'size'], [...swept.map((s) => row(s.kind, s)), row('together', total), row('results kept', kept)]),
    ...(saved > 0 ? [`${saved} kept after all: somebody wanted them meanwhile`] : []),
    ...unreadable.map((f) => `commit record ${f} cannot be read: left alone; remove it by hand once its cause is known`),
    ...(applied || total.count === 0 ? [] : ['nothing was removed; --apply does it']),
  ].join('\n')
}
