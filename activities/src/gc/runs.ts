import type { Client, WorkflowExecutionInfo } from '@temporalio/client'
import { WorkflowNotFoundError } from '@temporalio/client'
import type { Payload } from '@temporalio/common'
import type { Stage } from '@cpt/contracts/stage'
import { stages } from '@cpt/contracts/stages'
import { z } from 'zod'
import type { ArtifactStore } from '../artifact-store/artifact-store.ts'
import { fingerprintOf, unitsOf } from '../identity.ts'
import { StoreCorrupt, UnknownPath } from '../stage-failure.ts'
import { markAll, noMarks, union, type Marks } from './marks.ts'

type History = Awaited<ReturnType<ReturnType<Client['workflow']['getHandle']>['fetchHistory']>>
const Call = z.object({ request: z.record(z.string(), z.unknown()) })
const atOnce = 8
const readable = new Set(['json/plain', 'json/protobuf', 'binary/null', 'binary/plain'])

/**
 * What the workflows that the server still knows want: everything that a history names, and for open ones also the work
 * that a stage under way would commit. Each call asks anew; of a closed workflow the first answer holds.
 */
export const runsOf = (client: Client, store: Pick<ArtifactStore, 'manifest'>): (() => Promise<Marks>) => {
  const closed = new Map<string, Marks>()
  return async () => {
    const listed: WorkflowExecutionInfo[] = []
    for await (const info of client.workflow.list()) listed.push(info)
    const marks: Marks[] = []
    const left = [...listed]
    const worker = async (): Promise<void> => {
      for (let info = left.pop(); info !== undefined; info = left.pop()) {
        const known = closed.get(info.runId)
        const found = known ?? (await marksOfRun(client, store, info.workflowId, info.runId))
        if (info.status.name !== 'RUNNING') closed.set(info.runId, found)
        marks.push(found)
      }
    }
    await Promise.all(Array.from({ length: atOnce }, worker))
    return union(...marks)
  }
}

/** What one execution wants; nothing, when the server has forgotten it meanwhile. */
export const marksOfRun = async (client: Client, store: Pick<ArtifactStore, 'manifest'>, workflowId: string, runId?: string): Promise<Marks> => {
  const marks = noMarks()
  let history: History
  try {
    history = await client.workflow.getHandle(workflowId, runId).fetchHistory()
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return marks
    throw error
  }
  for (const text of await textsIn(client, history)) markAll(marks, text)
  for (const event of history.events ?? []) {
    const scheduled = event.activityTaskScheduledEventAttributes
    const stage = (stages as Record<string, Stage>)[scheduled?.activityType?.name ?? '']
    if (stage === undefined) continue
    const [text] = await textsIn(client, scheduled?.input)
    for (const f of await fingerprintsOf(stage, text, store)) marks.fingerprints.add(f)
  }
  return marks
}

/** The work that a call of a stage asks for: its own fingerprint, and those of its units where their inputs are there. */
const fingerprintsOf = async (stage: Stage, text: string | undefined, store: Pick<ArtifactStore, 'manifest'>): Promise<string[]> => {
  const call = Call.safeParse(text === undefined ? null : JSON.parse(text))
  const request = stage.request.safeParse(call.data?.request)
  if (!request.success) return []
  const data = request.data as Record<string, unknown>
  const units = stage.shape.kind === 'whole' ? [] : await unitsOf(stage, data, async (ref) => (await store.manifest(ref)).shards).catch(noneYet)
  return [fingerprintOf(stage, data), ...units.map((u) => u.fingerprint)]
}

/** A call whose inputs are gone or do not fit has no units; a store that does not answer is another matter. */
const noneYet = (error: unknown): [] => {
  if ([StoreCorrupt, UnknownPath, RangeError, SyntaxError, z.ZodError].some((kind) => error instanceof kind)) return []
  throw error
}

/** The text of every payload anywhere in a message, decoded as the client would. */
const textsIn = async (client: Client, message: unknown): Promise<string[]> => {
  let payloads = payloadsIn(message)
  for (const codec of client.options.loadedDataConverter.payloadCodecs.toReversed()) payloads = await codec.decode(payloads)
  return payloads.map((p) => {
    const encoding = Buffer.from(p.metadata?.['encoding'] ?? new Uint8Array()).toString('utf8')
    // what cannot be read may name anything
    if (!readable.has(encoding)) throw new Error(`gc: a history holds payloads of encoding ${encoding || '(none)'}, which this process cannot read; give it the codec of the workers`)
    return Buffer.from(p.data ?? new Uint8Array()).toString('utf8')
  })
}

const payloadsIn = (value: unknown): Payload[] => {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return []
  if ('data' in value && value.data instanceof Uint8Array) return [value as Payload]
  return Object.values(value).flatMap(payloadsIn)
}
