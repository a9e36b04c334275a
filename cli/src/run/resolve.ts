import type { WorkflowHandle } from '@temporalio/client'
import { ResolveFailure, type Parked, type RunProgress } from '@cpt/contracts/cpt-run'
import { problemsOf } from '@cpt/contracts/parse-input'
import { CliError, messageOf } from '../cli-error.ts'
import { operator } from '../config.ts'
import type { Session } from '../connect.ts'
import { plainText } from '../plain-text.ts'
import { findRun } from './find-run.ts'
import { sendUpdate } from './send-update.ts'
import { withSession } from './with-session.ts'

export interface ResolveFlags {
  action: string
  stage?: string
  park?: number
  patch?: string
  reason: string
  state?: string
}

/** The one decision that is open, if stage and park are not given. */
export const choosePark = (parked: readonly Parked[], flags: Pick<ResolveFlags, 'stage' | 'park'>): { stage: string; park: number } => {
  if (flags.stage !== undefined && flags.park !== undefined) return { stage: flags.stage, park: flags.park }
  const open = parked.filter((p) => (flags.stage === undefined || p.stage === flags.stage) && (flags.park === undefined || p.park === flags.park))
  const [only] = open
  if (only !== undefined && open.length === 1) return { stage: only.stage, park: only.park }
  const list = parked.map((p) => `--stage ${p.stage} --park ${p.park}`).join('\n')
  if (open.length === 0) throw new CliError('failed', 'no stage waits for this decision', list === '' ? '`cpt status` shows what the run does.' : `Waiting:\n${list}`)
  throw new CliError('usage', `${open.length} stages wait for a decision`, `Say which:\n${list}`)
}

const readPatch = (text: string | undefined): unknown => {
  if (text === undefined) return undefined
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new CliError('usage', `--patch: ${messageOf(error)}`, 'Give JSON, e.g. --patch \'{"placement":{"batchTokens":4096}}\'')
  }
}

/** The same decision may be sent more than once: the first one acts, later ones are told what was decided. */
export const sendDecision = (handle: WorkflowHandle, decision: ResolveFailure, updateId?: string): Promise<string> =>
  sendUpdate(handle, 'resolveFailure', decision, {
    // a stage about to park does not take decisions yet: as long as it is listed as parked, ask again
    isOutdated: () => handle.query<RunProgress>('progress').then((p) => p.parked.some((q) => q.stage === decision.stage && q.park === decision.park), () => true),
    ...(updateId === undefined ? {} : { updateId }),
  })

const decide = async (session: Session, named: string, flags: ResolveFlags): Promise<void> => {
  const patch = readPatch(flags.patch)
  const handle = session.client.workflow.getHandle(await findRun(session, named))
  const needsLook = flags.stage === undefined || flags.park === undefined
  const target = choosePark(needsLook ? (await handle.query<RunProgress>('progress')).parked : [], flags)
  const decision = { ...target, action: flags.action, reason: flags.reason, by: operator(), ...(patch !== undefined ? { patch } : {}) }
  const parsed = ResolveFailure.safeParse(decision)
  if (!parsed.success) throw new CliError('usage', problemsOf(parsed.error, decision).map((p) => `${p.path}: expected ${p.expected}, got ${p.got}`).join('\n'), 'See `cpt resolve --help`.')
  process.stdout.write(`${plainText(await sendDecision(handle, parsed.data))}\n`)
}

export const resolve = (named: string, flags: ResolveFlags): Promise<void> => withSession(flags.state, (session) => decide(session, named, flags))
