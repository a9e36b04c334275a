import type { Placement } from '@cpt/contracts/job'
import type { Stage } from '@cpt/contracts/stage'
import { z } from 'zod'
import { classifyFailure } from './classify-failure.ts'
import type { Ending } from './failure-evidence.ts'

/** Where and with what an attempt runs, and how that differs from what was asked for. */
export interface Adapted {
  placement: Placement
  note: string | null
}

/** Stages that work through micro-batches of `placement.batchTokens`. */
const batched: ReadonlySet<string> = new Set(['train', 'score-ppl', 'evaluate-perplexity', 'evaluate-benchmark'])
const smallestBatchTokens = 64
/** A machine that lost so many attempts is not asked for again. */
const strikes = 2

/**
 * What was asked for, less what earlier attempts have shown not to work: half the micro-batch of the smallest that ran
 * out of memory, in whole sequences, and no machine that was lost twice. The global batch stays as it is.
 */
export const adaptedPlacement = (work: { stage: Pick<Stage, 'name'>; request: unknown; placement: Placement }, past: Ending[]): Adapted => {
  const judged = past.map((ending) => ({ ending, verdict: classifyFailure(ending) }))
  const tried = judged.filter(({ verdict }) => verdict.next === 'smaller').map(({ ending }) => ending.placement.batchTokens)
  const smaller = tried.length === 0 ? null : halved(work, Math.min(...tried))
  const lost = judged.filter(({ verdict }) => verdict.failureClass === 'node-lost').flatMap(({ ending }) => ending.end.scheduler?.nodes ?? [])
  const excluded = [...new Set(lost)].filter((node) => lost.filter((n) => n === node).length >= strikes && !work.placement.excludeNodes.includes(node))
  const notes = [
    ...(smaller === null ? [] : [`micro-batches of ${smaller} tokens after running out of memory with ${Math.min(...tried)}`]),
    ...(excluded.length === 0 ? [] : [`without ${excluded.join(', ')}, lost ${strikes} times`]),
  ]
  return {
    placement: { ...work.placement, ...(smaller === null ? {} : { batchTokens: Math.min(smaller, work.placement.batchTokens) }), excludeNodes: [...work.placement.excludeNodes, ...excluded] },
    note: notes.length === 0 ? null : notes.join('; '),
  }
}

const Sized = z.object({ sequenceTokens: z.number().optional(), windowTokens: z.number().optional(), globalBatchTokens: z.number().optional() })

/** Half of a micro-batch in whole sequences; null where it was one sequence, or the stage has no micro-batch. */
const halved = ({ stage, request }: { stage: Pick<Stage, 'name'>; request: unknown }, batchTokens: number): number | null => {
  if (!batched.has(stage.name)) return null
  const { sequenceTokens, windowTokens, globalBatchTokens } = Sized.safeParse(request).data ?? {}
  const sequence = sequenceTokens ?? windowTokens ?? 1
  const sequences = Math.floor(Math.min(batchTokens, globalBatchTokens ?? batchTokens) / sequence)
  const half = Math.max(smallestBatchTokens, Math.floor(sequences / 2) * sequence)
  return sequences > 1 && half < batchTokens ? half : null
}
