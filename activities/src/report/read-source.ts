import { ingest } from '@cpt/contracts/ingest'
import { train } from '@cpt/contracts/train'
import type { ArtifactRef, CommitRecord } from '@cpt/contracts/artifact'
import { z } from 'zod'
import type { Deps } from '../deps.ts'
import { sha256 } from '../identity.ts'
import type { CurvePoint, ReportSource, ValidationPoint } from './view.ts'

export type ReportStore = Pick<Deps['store'], 'record' | 'read' | 'get'>

const CurveLine = z.object({ step: z.number(), tokens: z.number(), loss: z.number(), lr: z.number() })
const ValidationLine = z.object({ step: z.number(), tokens: z.number(), nllPerToken: z.number() })
const Recorded = z.object({ inputs: z.unknown(), output: z.unknown() })

/** A sweep has hundreds of trials; so many files are read at a time. */
const readsAtOnce = 32

/**
 * The records of these fingerprints, the curves of the trainings among them and what their frozen sets showed, and these decisions, where a digest is given
 * those of this digest. A report is of most use
 * when something went wrong: what cannot be read is left out and `missed` is told, never fatal.
 */
export const readSource = async (store: ReportStore, of: { fingerprints: readonly string[]; decisions: readonly { key: string; kind: string; uri: string; sha256?: string | undefined }[] }, missed: (what: string, error: unknown) => void): Promise<ReportSource> => {
  const orNull = async <T>(what: string, reading: Promise<T>): Promise<T | null> => {
    try {
      return await reading
    } catch (e) {
      missed(what, e)
      return null
    }
  }
  const fingerprints = [...new Set(of.fingerprints.filter((f) => f !== ''))]
  const records = new Map<string, CommitRecord | null>()
  const curves = new Map<string, CurvePoint[]>()
  const validations = new Map<string, ValidationPoint[]>()
  for (let at = 0; at < fingerprints.length; at += readsAtOnce) {
    const part = fingerprints.slice(at, at + readsAtOnce)
    const found = await Promise.all(part.map(async (f) => {
      const record = await orNull(f, store.record(f))
      const trained = record?.stage === train.name ? train.result.safeParse(record.result).data : undefined
      const linesOf = async <T>(ref: ArtifactRef | undefined, line: z.ZodType<T>) => (ref === undefined ? null : parseLines(await orNull(ref.uri, store.read(ref)), line))
      return { f, record, curve: await linesOf(trained?.curve, CurveLine), validated: await linesOf(trained?.validations, ValidationLine) }
    }))
    for (const { f, record, curve, validated } of found) {
      records.set(f, record)
      if (curve !== null) curves.set(f, curve)
      if (validated !== null) validations.set(f, validated)
    }
  }
  const sourceLines = new Map<string, Map<string, SourceLines>>()
  for (const [f, record] of records) if (record?.stage === ingest.name) sourceLines.set(f, await linesOfSources(record, (unit) => orNull(unit, store.record(unit))))
  const decisions = await Promise.all(
    of.decisions.map(async ({ key, kind, uri, sha256: expected }) => {
      const bytes = await orNull(uri, store.get(uri))
      const isIt = expected === undefined || (bytes !== null && sha256(Buffer.from(bytes)) === expected)
      const recorded = isIt ? Recorded.safeParse(parseJson(bytes)).data : undefined
      return { key, kind, inputs: recorded?.inputs ?? null, output: recorded?.output ?? null }
    }),
  )
  return { records, curves, validations, sourceLines, decisions }
}

type SourceLines = { lines: number; quarantined: number }
const Merged = z.object({ units: z.array(z.string()) })
const IngestUnit = z.object({ counts: z.object({ lines: z.number(), quarantined: z.number(), bySource: z.record(z.string(), z.number()) }) })

/** What the units of an ingest counted, by the name of their source; a unit is a file of one source. */
const linesOfSources = async (record: CommitRecord, read: (unit: string) => Promise<CommitRecord | null>): Promise<Map<string, SourceLines>> => {
  const units = Merged.safeParse(record.result).data?.units ?? []
  const found = new Map<string, SourceLines>()
  for (let at = 0; at < units.length; at += readsAtOnce) {
    for (const unit of await Promise.all(units.slice(at, at + readsAtOnce).map(read))) {
      const counts = IngestUnit.safeParse(unit?.result).data?.counts
      const [source] = Object.keys(counts?.bySource ?? {})
      if (counts === undefined || source === undefined) continue
      const before = found.get(source) ?? { lines: 0, quarantined: 0 }
      found.set(source, { lines: before.lines + counts.lines, quarantined: before.quarantined + counts.quarantined })
    }
  }
  return found
}

/** Lines that are not of the form are left out. */
const parseLines = <T>(bytes: Uint8Array | null, form: z.ZodType<T>): T[] =>
  Buffer.from(bytes ?? new Uint8Array())
    .toString('utf8')
    .split('\n')
    .flatMap((line) => form.safeParse(parseJson(line)).data ?? [])

const parseJson = (data: Uint8Array | string | null): unknown => {
  try {
    return JSON.parse(typeof data === 'string' ? data : Buffer.from(data ?? new Uint8Array()).toString('utf8')) as unknown
  } catch {
    return null
  }
}
