import { Context } from '@temporalio/activity'
import { ApplicationFailure, CancelledFailure } from '@temporalio/common'
import type { CommitRecord } from '@cpt/contracts/artifact'
import { Placement, type JobUnit } from '@cpt/contracts/job'
import { pausedType } from '@cpt/contracts/activities'
import { problemsOf } from '@cpt/contracts/parse-input'
import type { Stage, StageCall, StageOutcome } from '@cpt/contracts/stage'
import type { StageAddress } from '@cpt/contracts/activities'
import { z } from 'zod'
import { nameAsker } from './askers.ts'
import { askerOf, claimsOf } from './claims.ts'
import type { Deps } from './deps.ts'
import { canonical, fingerprintOf, parentsOf, unitsOf } from './identity.ts'
import { liveLine, type LiveLine } from './live-progress.ts'
import { mergeUnits } from './merge-units.ts'
import { phaseProgress } from './phase-progress.ts'
import { needsPerson, StoreCorrupt, UnknownPath } from './stage-failure.ts'
import { shareUnits, type Owner } from './unit-owners.ts'
import { Detached, watchRange } from './watch-range.ts'

/**
 * The one activity behind every stage: parse → fingerprint → committed? return it → else see each range of work to its
 * commit → merge. A retry re-attaches to the running job; a second asker of the same fingerprint shares it.
 */
export const runStage =
  <S extends Stage>(deps: Deps, stage: S) =>
  async (call: StageCall<S> & StageAddress): Promise<StageOutcome<S>> => {
    const parsed = stage.request.safeParse(call.request)
    if (!parsed.success) throw refused(stage, problemsOf(parsed.error, call.request).map((p) => `${p.path}: expected ${p.expected}, got ${p.got}`).join('; '))
    const request = parsed.data as Record<string, unknown>
    const placement = Placement.parse(call.placement ?? {})
    const fingerprint = fingerprintOf(stage, request)

    const outcome = (record: CommitRecord, reused: boolean, attempts: number, jobSeconds: number): StageOutcome<S> => ({
      result: stage.result.parse(record.result) as StageOutcome<S>['result'], fingerprint, reused, attempts, jobSeconds,
    })
    try {
      const hit = await intactRecord(deps, fingerprint)
      if (hit !== null) return outcome(hit, true, 0, 0)
      // without it the reaper lets this line's jobs alone, and their lease ends them
      await nameAsker(deps, call.run, call.key).catch((err: unknown) => { deps.log.warn({ err, key: call.key }, 'who asks is not on record') })
      const work = stage.shape.kind === 'map' ? await unitsOf(stage, request, async (ref) => (await deps.store.manifest(ref)).shards) : null
      const ranges = work === null ? [null] : await rangesOf(deps, fingerprint, work, placement.shardsPerJob)
      const before = await committedUnits(deps, work ?? [])
      const asker = askerOf(call.run.workflowId, call.run.firstRunId, call.key)
      let [watched, recoveries] = [0, 0]
      const live = liveLine(deps, call.key)
      await together(ranges, placement.runner === 'local' ? deps.config.slots : ranges.length, async (indices, range, detach) => {
        const watch = async (units: JobUnit[] | null, at: number): Promise<void> => {
          await watchRange(deps, {
            stage, fingerprint, range: at, request, placement, asker, key: call.key, decision: call.decision, detach, live,
            parents: parentsOf(request),
            pending: async () => units === null ? null : await pendingOf(deps, units),
            isCommitted: async () => units === null ? (await deps.store.record(fingerprint)) !== null : (await pendingOf(deps, units)).length === 0,
            progress: async () => units === null ? await phaseProgress(deps.store, fingerprint) : String((await pendingOf(deps, units)).length),
          })
          watched += 1
        }
        if (indices === null) await watch(null, range)
        else await allOf(deps, { units: (work ?? []).filter((u) => indices.includes(u.index)), owner: { fingerprint, range }, ranges: ranges.length, watch, live, detach })
        // what other runs have tried at the same work is no recovery of this one
        recoveries += Math.max(0, (await claimsOf(deps.store, fingerprint, range)).filter((c) => c.workflow === asker).length - 1)
      })
      const record = work === null ? await deps.store.record(fingerprint) : await mergeUnits(deps, stage, fingerprint, request, work)
      if (record === null) throw new StoreCorrupt(`${stage.name}: the commit record of ${fingerprint} is gone`)
      return outcome(record, false, watched === 0 ? 0 : 1 + recoveries, await jobSecondsOf(deps, record, (work ?? []).filter((u) => !before.has(u.fingerprint))))
    } catch (e) {
      if (e instanceof StoreCorrupt) throw needsPerson('StoreCorrupt', `${stage.name}: ${e.message}`, { stage: stage.name, fingerprint, attempts: 0, endClass: 'bad-data', logTail: [] })
      if (e instanceof UnknownPath || e instanceof RangeError) throw refused(stage, e.message)
      throw e
    }
  }

interface SharedRange {
  units: JobUnit[]
  owner: Owner
  /** How many ranges the stage has: a unit taken over later is a range of its own after them. */
  ranges: number
  watch: (units: JobUnit[], range: number) => Promise<void>
  live: LiveLine
  detach: AbortSignal
}

/** Sees the units of a range committed: does those that nobody works at, and waits for those that another request does. */
const allOf = async (deps: Deps, { units, owner, ranges, watch, live, detach }: SharedRange): Promise<void> => {
  // another request may have committed these units already: a job would start only to find nothing to do
  const open = await pendingOf(deps, units)
  if (open.length === 0) return
  for (let left = open, first = true; left.length > 0; left = await pendingOf(deps, left), first = false) {
    if (!first) {
      if (detach.aborted) throw new Detached()
      await live.report(owner.range, { attempt: 0, beat: null, waits: `waiting for ${left.length} ${left.length === 1 ? 'shard' : 'shards'} that another run works at` })
      await Context.current().sleep(othersPollMs)
    }
    const { mine } = await live.beating(() => shareUnits(deps, left, owner, ranges))
    for (const range of new Set(mine.map((m) => m.range))) {
      const units = await pendingOf(deps, mine.filter((m) => m.range === range).map((m) => m.unit))
      if (units.length > 0) await watch(units, range)
    }
  }
}

/** Whether another's job goes on is looked at so often; the look itself takes up to two seconds where it does not. */
const othersPollMs = 500

/**
 * Watches all ranges at once, on this machine no more than it has slots for. When one fails the others are left running
 * and looked at no more, so that the activity's next attempt begins at once; the gravest failure is the activity's. Ranges
 * that a person pauses leave one after the other, each at its commit.
 */
const together = async <T>(items: T[], width: number, watch: (item: T, index: number, detach: AbortSignal) => Promise<void>): Promise<void> => {
  const leave = new AbortController()
  const left = [...items.entries()]
  const failed: unknown[] = []
  const worker = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined && !leave.signal.aborted; next = left.shift()) {
      try {
        await watch(next[1], next[0], leave.signal)
      } catch (e) {
        failed.push(e)
        if (!isPaused(e)) leave.abort()
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker))
  const causes = failed.filter((e) => !(e instanceof Detached))
  const needPerson = causes.find((e) => e instanceof ApplicationFailure && e.nonRetryable === true && !isPaused(e))
  const gravest = causes.find((e) => e instanceof CancelledFailure) ?? needPerson ?? causes.find(isPaused) ?? causes[0]
  if (gravest !== undefined) throw gravest as Error
}

const isPaused = (e: unknown): boolean => e instanceof ApplicationFailure && e.type === pausedType

const refused = (stage: Stage, message: string): ApplicationFailure =>
  needsPerson('BadRequest', `${stage.name}: ${message}`, { stage: stage.name, fingerprint: '', attempts: 0, endClass: 'bad-request', logTail: [] })

/** The record of a fingerprint whose data are all there; a record without its data is removed, so that the work is done again. */
export const intactRecord = async (deps: Pick<Deps, 'store' | 'log'>, fingerprint: string): Promise<CommitRecord | null> => {
  const record = await deps.store.record(fingerprint)
  if (record === null) return null
  const sizes = await Promise.all(record.files.map(async (f) => (await deps.store.size(f.path)) === f.bytes))
  const unitRecords = await Promise.all(z.array(z.string()).parse(unitsIn(record)).map((u) => intactRecord(deps, u)))
  if (sizes.every(Boolean) && unitRecords.every((r) => r !== null)) return record
  deps.log.warn({ fingerprint, stage: record.stage }, 'committed data are missing: the record is removed and the work done again')
  await deps.store.remove(`commits/${fingerprint.slice(0, 2)}/${fingerprint}.json`)
  return null
}

/** Fingerprints of the units that a merged record stands on, kept in its result. */
const unitsIn = (record: CommitRecord): string[] => z.object({ units: z.array(z.string()) }).safeParse(record.result).data?.units ?? []

const committedUnits = async (deps: Deps, units: JobUnit[]): Promise<Set<string>> => {
  const done = await Promise.all(units.map(async (u) => ((await intactRecord(deps, u.fingerprint)) === null ? [] : [u.fingerprint])))
  return new Set(done.flat())
}

const pendingOf = async (deps: Deps, units: JobUnit[]): Promise<JobUnit[]> => {
  const records = await Promise.all(units.map((u) => deps.store.record(u.fingerprint)))
  return units.filter((_, i) => records[i] === null)
}

/** Cut once over all units and recorded before anything is submitted: a later setting never moves the borders. */
const rangesOf = async (deps: Deps, fingerprint: string, units: JobUnit[], shardsPerJob: number): Promise<number[][]> => {
  const cut: number[][] = []
  for (let i = 0; i < units.length; i += shardsPerJob) cut.push(units.slice(i, i + shardsPerJob).map((u) => u.index))
  const key = `ranges/${fingerprint.slice(0, 2)}/${fingerprint}.json`
  await deps.store.putIfAbsent(key, Buffer.from(canonical(cut)))
  const bytes = await deps.store.get(key)
  return z.array(z.array(z.int())).parse(JSON.parse(Buffer.from(bytes ?? new Uint8Array()).toString('utf8')))
}

const jobSecondsOf = async (deps: Deps, record: CommitRecord, units: JobUnit[]): Promise<number> => {
  if (units.length === 0) return record.wallSeconds
  // each unit's record carries the seconds since its job began: the last one is the job's
  const seconds = await Promise.all(units.map(async (u) => (await deps.store.record(u.fingerprint))?.wallSeconds ?? 0))
  return Math.max(...seconds)
}

