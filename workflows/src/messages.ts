import { defineQuery, defineSignal, defineUpdate } from '@temporalio/workflow'
import type { Approval } from '@cpt/contracts/model-transfer'
import type { RunParked, TrialEnded, TrialParked } from '@cpt/contracts/sweep'
import type { LiveProgress, ResolveFailure, RunProgress } from '@cpt/contracts/cpt-run'
import type { z } from 'zod'

export const progressQuery = defineQuery<RunProgress>('progress')
export const liveProgressSignal = defineSignal<[LiveProgress]>('liveProgress')
export const resolveFailureUpdate = defineUpdate<string, [ResolveFailure]>('resolveFailure')
export const pauseUpdate = defineUpdate<string, [{ by?: string }?]>('pause')
export const resumeUpdate = defineUpdate<string, [{ by?: string }?]>('resume')
export const trialEndedSignal = defineSignal<[TrialEnded]>('trialEnded')
export const trialParkedSignal = defineSignal<[TrialParked]>('trialParked')
/** From the run on the target to its transfer. */
export const runParkedSignal = defineSignal<[RunParked]>('runParked')
/** From a sweep or transfer that is paused, or goes on, to its trials and its run. */
export const holdSignal = defineSignal<[{ paused: boolean }]>('hold')
export const setBudgetUpdate = defineUpdate<string, [{ gpuSeconds: number | null; by?: string }]>('setBudget')
export const approveUpdate = defineUpdate<string, [z.input<typeof Approval>]>('approve')
