import { createHash } from 'node:crypto'
import type { ShardEntry} from '@cpt/contracts/artifact';
import { type ArtifactRef } from '@cpt/contracts/artifact'
import type { JobUnit } from '@cpt/contracts/job'
import type { Stage } from '@cpt/contracts/stage'
import canonicalizeModule from 'canonicalize'
import { z } from 'zod'

// the package is CommonJS: its default export is the function itself
const canonicalize = canonicalizeModule

/** RFC 8785 form of a JSON value. Throws TypeError for what JSON cannot carry (NaN, undefined at the top). */
export const canonical = (value: unknown): string => {
  const text = canonicalize(value)
  if (text === undefined) throw new TypeError('identity: the value has no canonical JSON form')
  return text
}

export const sha256 = (data: string | Uint8Array): string => createHash('sha256').update(data).digest('hex')

/** Digest of a folder: sha256 of the JSON list of [name, sha256], sorted by name; ml/cpt_ml/store.py computes the same. */
export const treeDigest = (files: readonly { name: string; sha256: string }[]): string =>
  sha256(JSON.stringify(files.map((f) => [f.name, f.sha256] as const).sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0))))

const isRef = (v: object): v is ArtifactRef => 'sha256' in v && 'uri' in v && 'bytes' in v && Object.keys(v).length === 3

/** References count by what they name, not by where it lies. */
const byDigest = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(byDigest)
  if (typeof value !== 'object' || value === null) return value
  if (isRef(value)) return { sha256: value.sha256 }
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, byDigest(v)]))
}

/** sha256 over name, version and canonical request: what the result depends on, and nothing else. */
export const fingerprintOf = (stage: Pick<Stage, 'name' | 'version'>, request: unknown): string =>
  sha256(canonical({ stage: stage.name, version: stage.version, request: byDigest(request) }))

/** Commits that a request builds on, from the `store:` references in it. */
export const parentsOf = (value: unknown): string[] => {
  const found = new Set<string>()
  const walk = (v: unknown): void => {
    if (Array.isArray(v)) v.forEach(walk)
    else if (typeof v === 'object' && v !== null) {
      if (isRef(v) && v.uri.startsWith('store:')) found.add(v.uri.slice(6, 70))
      Object.values(v).forEach(walk)
    }
  }
  walk(value)
  return [...found].sort()
}

const Refs = z.union([z.object({ uri: z.string(), sha256: z.string(), bytes: z.number() }), z.array(z.object({ uri: z.string(), sha256: z.string(), bytes: z.number() }))])

/**
 * The units of a map stage: sha256(name, version, request without what is mapped over, the unit's own digests), so one
 * more shard costs one shard. Throws RangeError when row-aligned manifests do not match.
 */
export const unitsOf = async (stage: Stage, request: Record<string, unknown>, shardsOf: (ref: ArtifactRef) => Promise<ShardEntry[]>): Promise<JobUnit[]> => {
  const shape = stage.shape
  if (shape.kind !== 'map') throw new TypeError(`identity: ${stage.name} is not a map stage`)
  const over = 'items' in shape ? [shape.items] : [...shape.manifests, ...(shape.optional ?? []).filter((field) => request[field] !== undefined)]
  const without = new Set([...over, ...(shape.stageOnly ?? [])])
  const rest = Object.fromEntries(Object.entries(request).filter(([k]) => !without.has(k)))
  const unit = (index: number, inputs: Record<string, unknown>, identity: unknown): JobUnit => ({
    index,
    fingerprint: sha256(canonical({ stage: stage.name, version: stage.version, request: byDigest(rest), unit: byDigest(identity) })),
    inputs,
  })
  if ('items' in shape) return z.array(z.unknown()).parse(request[shape.items]).map((item, i) => unit(i, { [shape.items]: item }, item))

  const columns = await Promise.all(
    over.map(async (field) => {
      const refs = Refs.parse(request[field])
      return { field, many: Array.isArray(refs), lists: await Promise.all((Array.isArray(refs) ? refs : [refs]).map(shardsOf)) }
    }),
  )
  const all = columns.flatMap((c) => c.lists)
  const shardCount = all[0]?.length ?? 0
  if (all.some((list) => list.length !== shardCount)) throw new RangeError(`${stage.name}: manifests of ${over.join(', ')} have ${all.map((l) => l.length).join(', ')} shards; expected the same number`)
  return Array.from({ length: shardCount }, (_, i) => {
    const rows = all.map((l) => at(l, i).rows)
    if (new Set(rows).size > 1) throw new RangeError(`${stage.name}: shard ${i} of ${over.join(', ')} has ${rows.join(', ')} rows; expected the same number`)
    const inputs = Object.fromEntries(columns.map(({ field, many, lists }) => [field, many ? lists.map((l) => at(l, i)) : at(lists[0] ?? [], i)]))
    return unit(i, inputs, columns.map(({ field, lists }) => [field, lists.map((l) => at(l, i).sha256)]))
  })
}

const at = (list: ShardEntry[], i: number): ShardEntry => {
  const entry = list[i]
  if (entry === undefined) throw new RangeError(`identity: shard ${i} is missing`)
  return entry
}
