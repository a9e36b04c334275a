import { randomUUID } from 'node:crypto'
import type { CommitRecord, Manifest } from '@cpt/contracts/artifact'
import { ShardEntry } from '@cpt/contracts/artifact'
import type { JobUnit } from '@cpt/contracts/job'
import { defaultNonFiniteRatio, Extremes } from '@cpt/contracts/score-ppl'
import type { Stage } from '@cpt/contracts/stage'
import { z } from 'zod'
import type { Deps } from './deps.ts'
import { failpoint } from './failpoint.ts'
import { canonical, parentsOf } from './identity.ts'
import { mergeExtremes } from './merge-extremes.ts'
import { needsPerson, StoreCorrupt } from './stage-failure.ts'

type Counts = number | { [key: string]: Counts }
const Counts: z.ZodType<Counts> = z.lazy(() => z.union([z.number(), z.record(z.string(), Counts)]))
const Example = z.object({ line: z.int(), offset: z.int(), reason: z.string() })
const UnitResult = z.object({ outputs: z.record(z.string(), z.array(ShardEntry)), counts: Counts, examples: z.array(Example).default([]), extremes: Extremes.optional(), alike: z.record(z.string(), z.unknown()).optional() })

/** Adds counts up by key; `undefined` is nothing. */
export const addCounts = (a: Counts | undefined, b: Counts): Counts => {
  if (a === undefined) return b
  if (typeof a === 'number' || typeof b === 'number') {
    if (typeof a === 'number' && typeof b === 'number') return a + b
    throw new TypeError('merge: a count is a number in one unit and a record in another')
  }
  const sum: Record<string, Counts> = { ...a }
  // keys come from documents: constructor is a word like any other
  for (const [key, value] of Object.entries(b)) sum[key] = addCounts(Object.hasOwn(sum, key) ? sum[key] : undefined, value)
  return sum
}

/** Turns the units' outputs into manifests, adds their counts up, and commits the stage. What all units say alike stays. */
export const mergeUnits = async (deps: Deps, stage: Stage, fingerprint: string, request: Record<string, unknown>, units: JobUnit[]): Promise<CommitRecord> => {
  if (stage.shape.kind !== 'map') throw new TypeError(`merge: ${stage.name} is not a map stage`)
  const results = await Promise.all(
    units.map(async (u) => {
      const record = await deps.store.record(u.fingerprint)
      if (record === null) throw new StoreCorrupt(`${stage.name}: shard ${u.index} was committed, and its record is gone`)
      return UnitResult.parse(record.result)
    }),
  )
  const counts = results.reduce<Counts | undefined>((sum, r) => addCounts(sum, r.counts), undefined) ?? {}
  refuseTooMuchQuarantined(stage, fingerprint, request, counts, results.map((r) => r.examples), units)
  const extremes = results.flatMap((r) => r.extremes ?? [])
  const named = extremes.length === 0 ? {} : { extremes: mergeExtremes(extremes) }
  refuseTooManyNonFinite(stage, fingerprint, request, counts, named.extremes)

  const attempt = `merge-${randomUUID()}`
  const files = []
  const refs: Record<string, unknown> = {}
  for (const kind of stage.shape.outputs) {
    const manifest: Manifest = { format: 'cpt-manifest/1', kind, shards: results.flatMap((r) => r.outputs[kind] ?? []) }
    const file = await deps.store.write(fingerprint, attempt, `${kind}.json`, Buffer.from(canonical(manifest)))
    files.push(file)
    refs[kind] = { uri: `store:${fingerprint}/${kind}.json`, sha256: file.sha256, bytes: file.bytes }
  }
  failpoint('merge-written')
  const committed = await deps.store.commit({
    format: 'cpt-commit/1', fingerprint, stage: stage.name, version: stage.version, request, files,
    result: { ...results[0]?.alike, ...refs, counts, ...named, units: units.map((u) => u.fingerprint) },
    parents: parentsOf(request), attempt, wallSeconds: 0, committedAt: new Date().toISOString(),
  })
  failpoint('merge-committed')
  return committed
}

const Source = z.object({ sources: z.object({ name: z.string(), part: z.string().optional() }) })
const nameOf = (unit: JobUnit): string => {
  const source = Source.safeParse(unit.inputs).data?.sources
  return source === undefined ? `shard ${unit.index}` : [source.name, ...(source.part === undefined ? [] : [source.part])].join('/')
}
const Quarantine = z.object({ lines: z.number(), quarantined: z.number() })

const refuseTooMuchQuarantined = (stage: Stage, fingerprint: string, request: Record<string, unknown>, counts: Counts, examples: z.infer<typeof Example>[][], units: JobUnit[]): void => {
  const limit = request['maxQuarantineRatio']
  const quarantine = Quarantine.safeParse(counts)
  if (typeof limit !== 'number' || !quarantine.success) return
  const { lines, quarantined } = quarantine.data
  if (lines === 0 || quarantined / lines <= limit) return
  const names = units.map((u) => nameOf(u))
  const first = examples.flatMap((list, i) => list.map((e) => `${names[i] ?? ''} line ${e.line} (byte ${e.offset}): ${e.reason}`)).slice(0, 10)
  throw needsPerson('TooMuchQuarantined', `${stage.name}: ${quarantined} of ${lines} lines (${((100 * quarantined) / lines).toFixed(2)} %) could not be read, allowed are ${100 * limit} %. The first: ${first.join(' · ')}`, {
    stage: stage.name, fingerprint, attempts: 0, endClass: 'bad-data', logTail: first,
  })
}

const Finite = z.object({ scored: z.number(), nonFinite: z.number() })

/** A job judges its own shards and leaves early; this judges them all, and again after the limit was patched. */
const refuseTooManyNonFinite = (stage: Stage, fingerprint: string, request: Record<string, unknown>, counts: Counts, extremes: Extremes | undefined): void => {
  const limit = request['maxNonFiniteRatio'] ?? defaultNonFiniteRatio
  const found = Finite.safeParse(counts)
  if (typeof limit !== 'number' || !found.success) return
  const { scored, nonFinite } = found.data
  if (nonFinite <= limit * (scored + nonFinite)) return
  const first = (extremes?.nonFinite ?? []).slice(0, 10).map((e) => `shard ${e.shard} row ${e.row}`)
  throw needsPerson('BadData', `${stage.name}: ${nonFinite} of ${scored + nonFinite} documents have no finite loss, allowed are ${100 * limit} % (maxNonFiniteRatio). The first: ${first.join(' · ')}. Does the scorer hold NaN, or is its dtype too narrow?`, {
    stage: stage.name, fingerprint, attempts: 0, endClass: 'bad-data', logTail: first,
  })
}
