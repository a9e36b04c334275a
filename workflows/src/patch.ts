import type { Decision } from '@cpt/contracts/cpt-run'
import type { PlacementInput } from '@cpt/contracts/job'
import { z } from 'zod'

/** A patch is merged over the request and must then fit the stage's schema. */
export const patchSchema = (schema: z.ZodType, request: unknown): z.ZodType =>
  z.record(z.string(), z.unknown()).superRefine((patch, ctx) => {
    const merged = schema.safeParse(merge(request, patch))
    if (!merged.success) for (const issue of merged.error.issues) ctx.addIssue({ code: 'custom', path: issue.code === 'unrecognized_keys' ? [...issue.path, ...issue.keys.slice(0, 1)] : issue.path, message: issue.message })
  })

/** The call with an operator's patch in it. */
export const patched = <C extends { request: unknown; placement: PlacementInput | undefined }>(call: C, answer: Decision): C => {
  const patch = answer.patch as { request?: Record<string, unknown>; placement?: PlacementInput } | null
  if (patch === null) return call
  return { ...call, request: merge(call.request, patch.request ?? {}), placement: patch.placement === undefined ? call.placement : { ...call.placement, ...patch.placement } }
}

export const merge = (base: unknown, over: unknown): unknown => {
  if (typeof base !== 'object' || base === null || Array.isArray(base) || typeof over !== 'object' || over === null || Array.isArray(over)) return over
  const merged: Record<string, unknown> = { ...base }
  for (const [k, v] of Object.entries(over)) if (k !== '__proto__') merged[k] = k in merged ? merge(merged[k], v) : v
  return merged
}
