import { defineQuery, defineSignal, defineUpdate } from '@temporalio/workflow'
import type { TrialEnded, TrialParked } from '@cpt/contracts/sweep'
import type { LiveProgress, ResolveFailure, RunProgress } from '@cpt/contracts/cpt-run'

export const progressQuery = defineQuery<RunProgress>('progress')
export const liveProgressSignal = defineSignal<[LiveProgress]>('liveProgress')
export const resolveFailureUpdate = defineUpdate<string, [ResolveFailure]>('resolveFailure')
export const pauseUpdate = defineUpdate<string, [{ by?: string }?]>('pause')
export const resumeUpdate = defineUpdate<string, [{ by?: string }?]>('resume')
export const trialEndedSignal = defineSignal<[TrialEnded]>('trialEnded')
export const trialParkedSignal = defineSignal<[TrialParked]>('trialParked')
export const setBudgetUpdate = defineUpdate<string, [{ gpuSeconds: number | null; by?: string }]>('setBudget')
