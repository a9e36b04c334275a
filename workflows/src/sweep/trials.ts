import { CancellationScope, ChildWorkflowCancellationType, condition, getExternalWorkflowHandle, ParentClosePolicy, setHandler, startChild, workflowInfo } from '@temporalio/workflow'
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common'
import type { SweepSpec } from '@cpt/contracts/almr-lr-sweep'
import type { ResolvedRun } from '@cpt/contracts/activities'
import type { Ledger, TrialEnded, TrialOutcome, TrialPoint } from '@cpt/contracts/sweep'
import type { Prepared } from '../chapter.ts'
import { setBudgetUpdate, trialEndedSignal, trialParkedSignal } from '../messages.ts'
import type { Run } from '../run.ts'
import { startOrder, trialsOf } from './grid.ts'
import { balance, estimate, reserve, settle } from './ledger.ts'
import type { sweepTrial, TrialInput } from './sweep-trial.ts'

/** How far the trials of a sweep are; what continue-as-new hands over. */
export interface Trials {
  ledger: Ledger
  begun: number[]
  /** Trials that have not ended; what a parked one waits for. */
  open: Record<string, { waitsFor: string | null }>
  outcomes: TrialOutcome[]
}

export interface Window {
  readonly state: Trials
  /** Begins trials, no more at a time than the sweep allows, until none is left to begin or to wait for; `between` may continue as new. */
  work: (prepared: Prepared, between: () => Promise<void>) => Promise<void>
  /** Every trial of the grid with what is known of it. */
  outcomes: () => TrialOutcome[]
}

const lineOf = (index: number): string => `trial-${index}`
const words = ({ almr, peakLr, seed }: TrialPoint): string => `ALMR ${almr}, LR ${peakLr}, seed ${seed}`

/** The sliding window over the trials of a sweep: what they signal, what they cost, which may begin. */
export const openTrials = (run: Run, sweep: SweepSpec, shared: ResolvedRun, state: Trials): Window => {
  const { workflowId: sweepId } = workflowInfo()
  const points = trialsOf(sweep.grid)
  const order = startOrder(sweep.grid)
  const idOf = (index: number): string => `${sweepId}/trial-${index}`
  let changes = 0

  const ended = ({ outcome, spentGpuSeconds }: TrialEnded): void => {
    const { [String(outcome.index)]: told, ...open } = state.open
    if (told === undefined) return // said twice, or by a trial of an earlier sweep
    state.open = open
    state.outcomes.push(outcome)
    state.ledger = settle(state.ledger, outcome.index, spentGpuSeconds)
    const losses = outcome.measurement === null ? outcome.status : `added ${outcome.measurement.added.perToken.toFixed(4)}, retained ${outcome.measurement.retained.perToken.toFixed(4)} nats/token`
    run.show(lineOf(outcome.index), { stage: 'trial', state: outcome.status === 'done' ? 'done' : 'failed', jobSeconds: spentGpuSeconds, note: `${words(outcome.point)}: ${losses}` })
    changes += 1
  }
  setHandler(trialEndedSignal, ended)
  setHandler(trialParkedSignal, ({ index, waitsFor }) => {
    const open = state.open[index]
    const point = points[index]
    if (open === undefined || point === undefined) return
    open.waitsFor = waitsFor === null ? null : `${waitsFor.type} at ${waitsFor.stage}`
    run.show(lineOf(index), { stage: 'trial', state: waitsFor === null ? 'running' : 'parked', note: `${words(point)}${waitsFor === null ? '' : `: waits for a person, ${waitsFor.type}: ${waitsFor.message}. Its page: ${idOf(index)}`}` })
    changes += 1
  })
  setHandler(setBudgetUpdate, ({ gpuSeconds, by }) => {
    state.ledger = { ...state.ledger, budget: gpuSeconds }
    changes += 1
    return `budget set${by === undefined ? '' : ` by ${by}`}: ${balance(state.ledger)}`
  }, {
    validator: ({ gpuSeconds }) => {
      if (gpuSeconds !== null && !(Number.isFinite(gpuSeconds) && gpuSeconds > 0)) throw new Error('gpuSeconds: expected a positive number, or null for no limit')
    },
    description: 'Set the budget of the sweep. Example: {"gpuSeconds": 7200, "by": "ann"}; null takes the limit away.',
  })

  const begin = async (index: number, point: TrialPoint, prepared: Prepared): Promise<void> => {
    state.begun.push(index)
    state.open[index] = { waitsFor: null }
    run.show(lineOf(index), { stage: 'trial', state: 'running', note: words(point) })
    const args: [TrialInput] = [{ sweepId, index, point, sweep, run: shared, prepared }]
    try {
      const child = await startChild<typeof sweepTrial>('sweepTrial', { workflowId: idOf(index), args, parentClosePolicy: ParentClosePolicy.ABANDON, cancellationType: ChildWorkflowCancellationType.ABANDON, staticSummary: words(point) })
      // one that is terminated tells nothing by itself
      child.result().catch(() => { ended({ outcome: { index, point, status: 'failed', workflowId: idOf(index), measurement: null }, spentGpuSeconds: 0 }) })
    } catch (e) {
      // after a reset it may still be there: it tells when it ends
      if (!(e instanceof WorkflowExecutionAlreadyStartedError)) throw e
    }
  }

  const openOnes = (): number[] => Object.keys(state.open).map(Number)
  const working = (): number => openOnes().filter((i) => state.open[i]?.waitsFor === null).length

  const work: Window['work'] = async (prepared, between) => {
    for (;;) {
      await run.released()
      const next = order.find((i) => !state.begun.includes(i))
      const point = next === undefined ? undefined : points[next]
      const held = next === undefined ? null : reserve(state.ledger, next, estimate(state.ledger, sweep.expectedGpuSeconds))
      if (next !== undefined && point !== undefined && held !== null && working() < sweep.parallel) {
        state.ledger = held
        await begin(next, point, prepared)
        continue
      }
      const nothingBegins = next === undefined || held === null
      if (nothingBegins && working() === 0 && (openOnes().length === 0 || sweep.parkedTrials === 'leave')) return
      const seen = changes
      await condition(() => changes !== seen)
      await between()
    }
  }

  return {
    state,
    work: async (prepared, between) => {
      try {
        await work(prepared, between)
      } catch (e) {
        if (CancellationScope.current().consideredCancelled) await CancellationScope.nonCancellable(() => cancelAll(openOnes().map(idOf), () => openOnes().length === 0))
        throw e
      }
    },
    outcomes: () => points.map((point, index) => {
      const status = state.open[index] === undefined ? 'unstarted' : state.open[index].waitsFor === null ? 'unstarted' : 'parked'
      return state.outcomes.find((o) => o.index === index) ?? { index, point, status, workflowId: idOf(index), measurement: null }
    }),
  }
}

/** A cancelled sweep takes its trials along, and waits until they have stopped their jobs. */
const cancelAll = async (ids: readonly string[], allOver: () => boolean): Promise<void> => {
  // one that has just ended cannot be cancelled
  await Promise.all(ids.map((id) => getExternalWorkflowHandle(id).cancel().catch(() => undefined)))
  await condition(allOver, '10 minutes')
}
