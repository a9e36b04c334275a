import { z } from 'zod'
import { Count, Sha256 } from './units.ts'

/**
 * A reference to immutable bytes. `uri` says where, `sha256` what; only the digest counts in a fingerprint.
 * `store:<fingerprint>/<name>` is a file of a committed stage, `store:<fingerprint>/<dir>/` a folder of it;
 * `<root>:<path>` a file or (trailing slash) folder under a root that the worker's configuration names.
 * The sha256 of a folder is that of the canonical JSON list of its files' names and digests (`treeDigest`).
 */
export const ArtifactRef = z.strictObject({
  uri: z.string().regex(/^[a-z][a-z0-9-]{0,30}:[^\0\\]{1,512}$/, 'expected <root>:<path>, e.g. samples:corpus/en.jsonl.zst'),
  sha256: Sha256,
  bytes: Count,
})
export type ArtifactRef = z.infer<typeof ArtifactRef>

/** One shard of a manifest: file `name` of commit `commit`, with its digest and number of rows. */
export const ShardEntry = z.strictObject({ commit: Sha256, name: z.string(), sha256: Sha256, bytes: Count, rows: Count })
export type ShardEntry = z.infer<typeof ShardEntry>

/** An ordered list of shards. Sidecars of one corpus are row-aligned: same number of shards, same rows. */
export const Manifest = z.strictObject({
  format: z.literal('cpt-manifest/1'),
  kind: z.string(),
  shards: z.array(ShardEntry),
})
export type Manifest = z.infer<typeof Manifest>

/** A file of a commit: `path` is relative to the store's root and unique to the attempt that wrote it. */
export const CommittedFile = z.strictObject({ name: z.string(), path: z.string(), sha256: Sha256, bytes: Count })
export type CommittedFile = z.infer<typeof CommittedFile>

/**
 * The commit record of one fingerprint, created only if absent at `commits/<fp[0:2]>/<fp>.json`.
 * It alone says that the work is done; data without a record are debris.
 */
export const CommitRecord = z.strictObject({
  format: z.literal('cpt-commit/1'),
  fingerprint: Sha256,
  stage: z.string(),
  version: z.int(),
  request: z.unknown(),
  files: z.array(CommittedFile),
  result: z.unknown(),
  parents: z.array(Sha256),
  attempt: z.string(),
  wallSeconds: z.number().nonnegative(),
  committedAt: z.string(),
})
export type CommitRecord = z.infer<typeof CommitRecord>

/**
 * One checkpoint of a training phase, created only if absent at
 * `checkpoints/<fp[0:2]>/<fp>/<branch 3 digits>-<seq 6 digits>.json`. Records form a chain by `parent`
 * (sha256 of the parent's record file, null for the first); a rollback continues on the next branch.
 */
export const CheckpointRecord = z.strictObject({
  format: z.literal('cpt-checkpoint/1'),
  fingerprint: Sha256,
  branch: Count,
  seq: Count,
  parent: Sha256.nullable(),
  step: Count,
  tokens: Count,
  files: z.array(CommittedFile),
  state: z.unknown(),
  attempt: z.string(),
  committedAt: z.string(),
})
export type CheckpointRecord = z.infer<typeof CheckpointRecord>
