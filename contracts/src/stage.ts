import type { z } from 'zod'
import type { Placement } from './job.ts'

/**
 * `whole`: one job, one commit. `map`: one commit per unit, merged afterwards: `items` are the elements of a list in
 * the request (ingest's sources), `manifests` the row-aligned shards of the named refs, and of the `optional` ones
 * that a request has. `stageOnly` fields judge the
 * merged result and so are not part of a unit's identity.
 */
export type StageShape =
  | { kind: 'whole' }
  | { kind: 'map'; items: string; outputs: readonly string[]; stageOnly?: readonly string[] }
  | { kind: 'map'; manifests: readonly string[]; optional?: readonly string[]; outputs: readonly string[]; stageOnly?: readonly string[] }

/** A stage: its name in every tree, the version of its code's meaning, and the two schemas. */
export interface Stage<Req extends z.ZodType = z.ZodType, Res extends z.ZodType = z.ZodType> {
  readonly name: string
  readonly version: number
  readonly shape: StageShape
  readonly request: Req
  readonly result: Res
  readonly threads: 'one' | 'placement'
}

/** Declares a stage. Its fingerprint is sha256(name, version, canonical request); refs count by digest. */
export const stage = <Req extends z.ZodType, Res extends z.ZodType>(s: Omit<Stage<Req, Res>, 'threads'> & { threads?: 'one' | 'placement' }): Stage<Req, Res> => ({
  threads: 'placement',
  ...s,
})

/** What a workflow sends to the activity of a stage. */
export interface StageCall<S extends Stage> {
  request: z.input<S['request']>
  placement?: z.input<typeof Placement>
  /** Given by the operator who patched a failed stage; recorded, not part of identity. */
  reason?: string
}

/** What it gets back: the result's small numbers and refs, and where they were found. */
export interface StageOutcome<S extends Stage> {
  result: z.output<S['result']>
  fingerprint: string
  reused: boolean
  attempts: number
  jobSeconds: number
}
