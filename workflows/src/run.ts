import { ActivityFailure, ApplicationFailure, CancellationScope, isCancellation, proxyActivities, setCurrentDetails, setHandler, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow'
import type { SearchAttributeUpdatePair } from '@temporalio/common'
import { pausedType, type ControlActivities, type RunIdentity, type StageActivities } from '@cpt/contracts/activities'
import type { Decision, RunProgress, StageLine } from '@cpt/contracts/cpt-run'
import { failures, type FailureEvidence, type FailureType } from '@cpt/contracts/failures'
import type { PlacementInput } from '@cpt/contracts/job'
import type { StageOutcome } from '@cpt/contracts/stage'
import { stages, type StageKey } from '@cpt/contracts/stages'
import type { z } from 'zod'
import { clusterJob, light } from './activity-options.ts'
import { attributes } from './attributes.ts'
import { openHolding } from './holding.ts'
import { liveProgressSignal, progressQuery } from './messages.ts'
import { pageText } from './page.ts'
import { openParking, settle } from './parking.ts'
import { patched, patchSchema, type FixedFields } from './patch.ts'

export interface StageOptions<K extends StageKey> {
  placement?: PlacementInput | undefined
  /** What the line says while it runs: what is known beforehand of what it costs. */
  expects?: string
  /** What the line says when it is done. */
  note?: (result: StageOutcome<(typeof stages)[K]>['result']) => string
}
export type ResultOf<K extends StageKey> = StageOutcome<(typeof stages)[K]>['result']
export type RequestOf<K extends StageKey> = z.input<(typeof stages)[K]['request']>

export interface Run {
  readonly progress: RunProgress
  /** Runs one stage to its result; a failure parks the line until a person decides, the run lives on. */
  stage: <K extends StageKey>(key: string, name: K, request: RequestOf<K>, options?: StageOptions<K>) => Promise<ResultOf<K>>
  /** The same for a stage that the run can do without: a person may skip it, and null comes back. */
  optionalStage: <K extends StageKey>(key: string, name: K, request: RequestOf<K>, options?: StageOptions<K>) => Promise<ResultOf<K> | null>
  /** Keeps a decision with its inputs and returns what holds: only the returned value may be used. */
  decide: <T>(kind: 'reweight' | 'gate' | 'mixture' | 'confirmation' | 'approval', key: string, inputs: unknown, output: T, schema: z.ZodType<T>) => Promise<T>
  /** Asks a person about something that is not a failed stage; `why` takes the place of what is usual for the type. */
  ask: (what: { stage: string; type: FailureType; message: string; actions: ('retry' | 'skip' | 'abort')[]; why?: { cause: string; suggest: string } }) => Promise<Decision>
  /** Puts a line on the page that is no stage of this workflow, as a trial of a sweep; what is given replaces what it said. */
  show: (key: string, line: Partial<Omit<StageLine, 'key'>> & Pick<StageLine, 'stage'>) => void
  /** Asks a person by an update; null: it was answered. */
  asks: (asked: NonNullable<RunProgress['asks']> | null) => void
  /** Lines on the page about how things stand, in the place of those said before. */
  tell: (lines: readonly string[]) => void
  describe: (facts: { model: string; owner: string; backend: string; almr?: number; lr?: number; lines: string[] }) => void
  /** Last words on the page, once nothing runs any more. */
  finish: (status: 'done' | 'failed', line: string) => void
  decisionsKept: { key: string; kind: string; uri: string; sha256?: string }[]
  /** Resolves when nothing is paused, nor a pause or its end still on its way to the jobs. */
  released: () => Promise<void>
}

/** Opens the run page: handlers first, so that no message is lost, then the one wrapper around every stage. */
export const openRun = (kind: string, before?: Pick<Run, 'progress' | 'decisionsKept'>, fixed: FixedFields = {}): Run => {
  const { workflowId, firstExecutionRunId, namespace } = workflowInfo()
  const identity: RunIdentity = { workflowId, firstRunId: firstExecutionRunId }
  const progress: RunProgress = before?.progress ?? { status: 'running', paused: false, current: '', stages: [], parked: [], decisions: [], recoveries: 0, live: null }
  const extra: string[] = []
  let told: readonly string[] = []
  const control = proxyActivities<ControlActivities>(light)
  const decisionsKept: Run['decisionsKept'] = before?.decisionsKept ?? []
  const changed = (): void => {
    setCurrentDetails(pageText(progress, { workflowId, namespace }, [...extra, ...told]))
    const pairs: SearchAttributeUpdatePair[] = [
      { key: attributes.status, value: progress.status },
      { key: attributes.recoveries, value: progress.recoveries },
      // other lines may go on beside a parked one, which is what a list of parked runs is about
      ...[progress.parked[0]?.stage ?? progress.current].filter((stage) => stage !== '').map((value) => ({ key: attributes.stage, value })),
    ]
    upsertSearchAttributes(pairs)
  }
  const parking = openParking(progress, changed)
  setHandler(progressQuery, () => progress, { description: 'Every stage with its state, what is parked, and the decisions so far.' })
  setHandler(liveProgressSignal, (live) => {
    progress.live = live
    if (live.step !== null) upsertSearchAttributes([{ key: attributes.step, value: live.step }, ...(live.loss === null ? [] : [{ key: attributes.loss, value: live.loss }])])
    setCurrentDetails(pageText(progress, { workflowId, namespace }, [...extra, ...told]))
  })
  const holding = openHolding(identity, progress, changed)
  // the UI asks once: whoever opens the page in the first second must not find it empty
  setCurrentDetails(pageText(progress, { workflowId, namespace }, [...extra, ...told]))
  upsertSearchAttributes([{ key: attributes.kind, value: kind }, { key: attributes.status, value: 'running' }])

  const line = async <K extends StageKey>(key: string, name: K, request: RequestOf<K>, options: StageOptions<K>, skippable: boolean): Promise<ResultOf<K> | null> => {
    let call: { request: unknown; placement: PlacementInput | undefined; reason?: string } = { request, placement: options.placement }
    let [decision, pauses] = [0, 0]
    for (;;) {
      await holding.open()
      const entry = begin(progress, key, stages[name].name)
      entry.note = options.expects ?? ''
      changed()
      try {
        const outcome = await callStage(name, key, [decision, pauses], { ...call, run: identity })
        Object.assign(entry, { state: outcome.reused ? 'reused' : 'done', fingerprint: outcome.fingerprint, attempts: outcome.attempts, jobSeconds: outcome.jobSeconds, note: options.note?.(outcome.result) ?? '' })
        progress.recoveries += Math.max(0, outcome.attempts - 1 - pauses)
        finish(entry)
        changed()
        return outcome.result
      } catch (e) {
        finish(entry)
        entry.state = 'failed'
        if (isPaused(e)) {
          Object.assign(entry, { state: 'paused', note: failureOf(e).message })
          pauses += 1
          changed()
          await holding.released(key)
          continue
        }
        await CancellationScope.nonCancellable(() => control.ensureStopped({ run: identity, key }))
        if (isCancellation(e)) throw e
        const failure = failureOf(e)
        entry.state = 'parked'
        Object.assign(entry, { note: failure.message })
        const answer = await parking.park({ stage: key, type: failure.type, message: failure.message, ...explain(failure.type), actions: skippable ? ['retry', 'skip', 'abort'] : ['retry', 'abort'], logTail: failure.logTail }, patchSchema(stages[name].request, call.request, fixed[name]))
        if (answer.action === 'skip') {
          entry.state = 'skipped'
          changed()
          return null
        }
        if (answer.action === 'abort') throw ApplicationFailure.nonRetryable(`${key}: aborted by ${answer.by}${answer.reason === '' ? '' : `: ${answer.reason}`}`, 'Aborted')
        call = patched(call, answer)
        decision += 1
      }
    }
  }

  return {
    progress,
    decisionsKept,
    released: () => holding.open(),
    finish: (status, words) => {
      progress.status = status
      progress.parked = []
      delete progress.waits
      delete progress.asks
      extra.push(words)
      changed()
    },
    optionalStage: (key, name, request, options = {}) => line(key, name, request, options, true),
    stage: async (key, name, request, options = {}) => {
      const result = await line(key, name, request, options, false)
      if (result === null) throw new TypeError(`${key}: a stage that cannot be skipped came back empty`)
      return result
    },
    decide: async (kindOf, key, inputs, output, schema) => {
      const kept = await proxyActivities<ControlActivities>({ ...light, activityId: `decide/${key}`, summary: `decision: ${kindOf}` }).recordDecision({ run: identity, key, kind: kindOf, inputs, output })
      decisionsKept.push({ key, kind: kindOf, uri: kept.uri, sha256: kept.sha256 })
      return schema.parse(kept.output)
    },
    ask: ({ why, ...what }) => parking.park({ ...what, ...(why ?? explain(what.type)), logTail: [] }, null),
    show: (key, line) => {
      const shown = Object.assign(progress.stages.find((s) => s.key === key) ?? begin(progress, key, line.stage), line)
      if (shown.state !== 'running') finish(shown)
      settle(progress)
      changed()
    },
    asks: (asked) => {
      if (asked === null) delete progress.asks
      else progress.asks = asked
      settle(progress)
      changed()
    },
    tell: (lines) => {
      told = lines
      settle(progress)
      changed()
    },
    describe: ({ model, owner, backend, almr, lr, lines }) => {
      extra.splice(0, extra.length, ...lines)
      upsertSearchAttributes([{ key: attributes.model, value: model }, { key: attributes.owner, value: owner }, { key: attributes.backend, value: backend }, ...(almr === undefined ? [] : [{ key: attributes.almr, value: almr }]), ...(lr === undefined ? [] : [{ key: attributes.lr, value: lr }])])
      changed()
    },
  }
}

/** Calls the activity of a stage under its own id, so that the history and the page read as the list of stages. */
const callStage = async <K extends StageKey>(name: K, key: string, [decision, pauses]: [number, number], call: { request: unknown; placement: PlacementInput | undefined; run: RunIdentity }): Promise<StageOutcome<(typeof stages)[K]>> => {
  const again = decision + pauses
  const id = again === 0 ? key : `${key}#${again + 1}`
  const proxy = proxyActivities<StageActivities>({ ...clusterJob, activityId: id, summary: id })
  const activity = proxy[name] as (arg: unknown) => Promise<StageOutcome<(typeof stages)[K]>>
  return await activity({ run: call.run, request: call.request, ...(call.placement === undefined ? {} : { placement: call.placement }), key, decision })
}

const begin = (progress: RunProgress, key: string, stageName: string): StageLine => {
  progress.current = key
  const line: StageLine = { key, stage: stageName, state: 'running', fingerprint: '', startedAtMs: Date.now(), seconds: 0, jobSeconds: 0, attempts: 0, note: '' }
  const at = progress.stages.findIndex((s) => s.key === key)
  if (at < 0) progress.stages.push(line)
  else progress.stages[at] = line
  return line
}

const finish = (line: StageLine): void => {
  line.seconds = (Date.now() - line.startedAtMs) / 1000
}

const explain = (type: FailureType): { cause: string; suggest: string } => ({ cause: failures[type].cause, suggest: failures[type].suggest })

const isPaused = (e: unknown): boolean => e instanceof ActivityFailure && e.cause instanceof ApplicationFailure && e.cause.type === pausedType

const failureOf = (e: unknown): { type: FailureType; message: string; logTail: string[] } => {
  const cause = e instanceof ActivityFailure ? e.cause : e
  if (!(cause instanceof ApplicationFailure)) return { type: 'NeedsAttention', message: cause instanceof Error ? cause.message : String(cause), logTail: [] }
  const evidence = cause.details?.[0] as FailureEvidence | undefined
  return { type: cause.type !== null && cause.type !== undefined && cause.type in failures ? (cause.type as FailureType) : 'NeedsAttention', message: cause.message, logTail: evidence?.logTail ?? [] }
}
