import { condition, setHandler } from '@temporalio/workflow'
import { ResolveFailure, type Decision, type Parked, type RunProgress } from '@cpt/contracts/cpt-run'
import { problemsOf } from '@cpt/contracts/parse-input'
import type { z } from 'zod'
import { resolveFailureUpdate } from './messages.ts'

export interface Parking {
  /** Parks a line until a person decides; a stage's parks are numbered from 1. */
  park: (what: Omit<Parked, 'park' | 'sinceMs'>, patchable: z.ZodType | null) => Promise<Decision>
}

/** Parks and the update that resolves them. A repeated or late decision is answered from the record and acts once. */
export const openParking = (state: RunProgress, changed: () => void): Parking => {
  const patchable = new Map<string, z.ZodType | null>()

  const check = (raw: ResolveFailure): string | null => {
    const parsed = ResolveFailure.safeParse(raw)
    if (!parsed.success) return problemsOf(parsed.error, raw).map((p) => `${p.path}: expected ${p.expected}, got ${p.got}`).join('; ')
    const { stage, park, action, patch } = parsed.data
    if (decisionOn(state, stage, park) !== undefined) return null
    const open = state.parked.find((p) => p.stage === stage)
    if (open === undefined) return `${stage} is not parked${state.parked.length === 0 ? '; nothing is' : `; parked: ${state.parked.map((p) => `${p.stage} (park ${p.park})`).join(', ')}`}`
    if (open.park !== park) return `${stage} is at park ${open.park}, not ${park}: look at the page again before you decide`
    if (!open.actions.includes(action)) return `${stage}: ${action} is not possible here; possible: ${open.actions.join(', ')}`
    if (patch !== undefined && action !== 'retry') return 'a patch goes with action retry only'
    if (patch?.request !== undefined) {
      const schema = patchable.get(stage)
      const merged = schema?.safeParse(patch.request)
      if (merged?.success === false) return problemsOf(merged.error, patch.request).map((p) => `patch.request.${p.path}: expected ${p.expected}, got ${p.got}`).join('; ')
    }
    return null
  }

  setHandler(
    resolveFailureUpdate,
    (raw) => {
      const given = ResolveFailure.parse(raw)
      const earlier = decisionOn(state, given.stage, given.park)
      if (earlier !== undefined) return `already decided: ${earlier.action} by ${earlier.by}`
      state.decisions.push({ stage: given.stage, park: given.park, action: given.action, patch: given.patch ?? null, reason: given.reason, by: given.by, atMs: Date.now() })
      return `${given.action} accepted for ${given.stage}, park ${given.park}`
    },
    {
      validator: (raw: ResolveFailure) => {
        const problem = check(raw)
        if (problem !== null) throw new Error(problem)
      },
      description: 'Decide on a parked stage. Example: {"stage": "stage-1/round-1/train", "park": 1, "action": "retry", "patch": {"request": {"schedule": {"peakLr": 0.0005}}}, "reason": "diverged", "by": "ann"}',
    },
  )

  return {
    park: async (what, schema) => {
      const park = state.decisions.filter((d) => d.stage === what.stage).length + 1
      state.parked.push({ ...what, park, sinceMs: Date.now() })
      patchable.set(what.stage, schema)
      settle(state)
      changed()
      await condition(() => decisionOn(state, what.stage, park) !== undefined)
      state.parked = state.parked.filter((p) => p.stage !== what.stage)
      settle(state)
      changed()
      const decision = decisionOn(state, what.stage, park)
      if (decision === undefined) throw new TypeError(`parking: the decision on ${what.stage} vanished`)
      return decision
    },
  }
}

/**
 * The one word for how a run stands, until it has ended: a park needs a person even while the run is paused, and so do
 * trials once nothing but them is left.
 */
export const settle = (state: RunProgress): void => {
  if (state.status === 'done' || state.status === 'failed') return
  const othersWait = (state.waits ?? []).length > 0 && !state.stages.some((s) => s.state === 'running')
  state.status = state.parked.length > 0 || othersWait || state.asks !== undefined ? 'parked' : state.paused ? 'paused' : 'running'
}

const decisionOn = (state: RunProgress, stage: string, park: number): Decision | undefined => state.decisions.find((d) => d.stage === stage && d.park === park)
