import type { Decision } from '@cpt/contracts/cpt-run'
import type { PlacementInput } from '@cpt/contracts/job'
import type { StageKey } from '@cpt/contracts/stages'
import { z } from 'zod'

/** By stage, dotted names of request fields that no patch may change. */
export type FixedFields = Partial<Record<StageKey, readonly string[]>>

/** A patch is merged over the request and must then fit the stage's schema; it leaves what is fixed alone. */
export const patchSchema = (schema: z.ZodType, request: unknown, fixed: readonly string[] = []): z.ZodType =>
  z.record(z.string(), z.unknown()).superRefine((patch, ctx) => {
    for (const path of fixed.map((field) => field.split('.')).filter((names) => touches(patch, names))) ctx.addIssue({ code: 'custom', path, message: 'expected no change: it is what this trial varies, or shares with the others of its sweep' })
    const merged = schema.safeParse(merge(request, patch))
    if (!merged.success) for (const issue of merged.error.issues) ctx.addIssue({ code: 'custom', path: issue.code === 'unrecognized_keys' ? [...issue.path, ...issue.keys.slice(0, 1)] : issue.path, message: issue.message })
  })

/** The call with an operator's patch in it. */
export const patched = <C extends { request: unknown; placement: PlacementInput | undefined }>(call: C, answer: Decision): C => {
  const patch = answer.patch as { request?: Record<string, unknown>; placement?: PlacementInput } | null
  if (patch === null) return call
  return { ...call, request: merge(call.request, patch.request ?? {}), placement: patch.placement === undefined ? call.placement : { ...call.placement, ...patch.placement } }
}

/** Whether a patch says anything about the field of these names, or about all that it is part of. */
const touches = (patch: unknown, [name, ...rest]: readonly string[]): boolean => {
  if (name === undefined) return true
  if (typeof patch !== 'object' || patch === null) return true
  return Object.hasOwn(patch, name) && touches((patch as Record<string, unknown>)[name], rest)
}

export const merge = (base: unknown, over: unknown): unknown => {
  if (typeof base !== 'object' || base === null || Array.isArray(base) || typeof over !== 'object' || over === null || Array.isArray(over)) return over
  const merged: Record<string, unknown> = { ...base }
  for (const [k, v] of Object.entries(over)) if (k !== '__proto__') merged[k] = k in merged ? merge(merged[k], v) : v
  return merged
}
