import { CancellationScope, ChildWorkflowCancellationType, condition, ContinueAsNew, getExternalWorkflowHandle, ParentClosePolicy, proxyActivities, setHandler, sleep, startChild, workflowInfo } from '@temporalio/workflow'
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common'
import type { ControlActivities, ResolvedRun } from '@cpt/contracts/activities'
import type { SweepSpec } from '@cpt/contracts/almr-lr-sweep'
import { trialMemo } from '@cpt/contracts/ids'
import type { Ledger, TrialEnded, TrialOutcome, TrialPoint, Waiting } from '@cpt/contracts/sweep'
import { light } from '../activity-options.ts'
import type { Prepared } from '../chapter.ts'
import { setBudgetUpdate, trialEndedSignal, trialParkedSignal } from '../messages.ts'
import type { Run } from '../run.ts'
import { passOnPauses } from '../tell.ts'
import { balance, debit, estimate, openLedger, reserve, settle } from './ledger.ts'
import type { sweepTrial, TrialInput } from './sweep-trial.ts'

/** How far the trials are; what continue-as-new hands over. */
export interface Trials {
  ledger: Ledger
  begun: number[]
  /** Trials that have not ended, and what a parked one waits for. */
  open: Record<string, { waitsFor: Waiting | null }>
  outcomes: TrialOutcome[]
}

export const noTrials = (budgetGpuSeconds: number | null): Trials => ({ ledger: openLedger(budgetGpuSeconds), begun: [], open: {}, outcomes: [] })

/** Which trials there are, in which order they begin, and what they share. */
export interface TrialPlan {
  /** By index. */
  points: readonly TrialPoint[]
  order: readonly number[]
  sweep: SweepSpec
  shared: ResolvedRun
}

export interface Window {
  readonly state: Trials
  /** Begins trials, no more at a time than the sweep allows, until none is left to begin or to wait for; `between` may continue as new. */
  work: (prepared: Prepared, between: () => Promise<void>) => Promise<void>
  /** Every trial with what is known of it. */
  outcomes: () => TrialOutcome[]
}

/** How often trials are looked after that an earlier execution began: one that is terminated tells nothing. */
const lookAfter = '1 minute'

const lineOf = (index: number): string => `trial-${index}`
const words = ({ almr, peakLr, seed }: TrialPoint): string => `ALMR ${almr}, LR ${peakLr}, seed ${seed}`

/** The sliding window over trials: what they signal, what they cost, which may begin. */
export const openTrials = (run: Run, { points, order, sweep, shared }: TrialPlan, state: Trials): Window => {
  const { workflowId: sweepId, firstExecutionRunId: chain } = workflowInfo()
  const idOf = (index: number): string => `${sweepId}/trial-${index}`
  const { trialStates } = proxyActivities<ControlActivities>({ ...light, summary: 'trials that an earlier execution began' })
  /** Trials that this execution began, whose end it hears of whatever it is. */
  const own = new Set<number>()
  let changes = 0

  const openOnes = (): number[] => Object.keys(state.open).map(Number)
  const waitingFor = (index: number): Waiting | null => state.open[index]?.waitsFor ?? null
  const working = (): number => openOnes().filter((i) => waitingFor(i) === null).length
  const changed = (): void => {
    run.progress.waits = openOnes().flatMap((i) => {
      const waitsFor = waitingFor(i)
      return waitsFor === null ? [] : [{ workflowId: idOf(i), ...waitsFor }]
    })
    run.tell([`Budget: ${balance(state.ledger)}`])
    changes += 1
  }

  const ended = (outcome: TrialOutcome, spentGpuSeconds: number): void => {
    const { [String(outcome.index)]: told, ...open } = state.open
    if (told === undefined) return // said twice
    state.open = open
    state.outcomes.push(outcome)
    state.ledger = settle(state.ledger, outcome.index, spentGpuSeconds)
    const { measurement } = outcome
    const losses = measurement === null ? outcome.status : `added ${measurement.added.perToken.toFixed(4)}, retained ${measurement.retained.perToken.toFixed(4)} nats/token`
    run.show(lineOf(outcome.index), { stage: 'trial', state: outcome.status === 'done' ? 'done' : 'failed', jobSeconds: state.ledger.spent[outcome.index] ?? 0, note: `${words(outcome.point)}: ${losses}` })
    changed()
  }
  const lost = (index: number): void => {
    const point = points[index]
    if (point !== undefined) ended({ index, point, status: 'failed', workflowId: idOf(index), measurement: null }, 0)
  }
  setHandler(trialEndedSignal, ({ chain: its, outcome, spentGpuSeconds }: TrialEnded) => {
    if (its === chain) ended(outcome, spentGpuSeconds)
  })
  setHandler(trialParkedSignal, ({ chain: its, index, waitsFor, spentGpuSeconds }) => {
    const [open, point] = [state.open[index], points[index]]
    if (its !== chain || open === undefined || point === undefined) return
    open.waitsFor = waitsFor
    state.ledger = debit(state.ledger, index, spentGpuSeconds)
    run.show(lineOf(index), { stage: 'trial', state: waitsFor === null ? 'running' : 'parked', note: `${words(point)}${waitsFor === null ? '' : `: waits for a person, ${waitsFor.type}`}` })
    changed()
  })
  setHandler(setBudgetUpdate, ({ gpuSeconds, by }) => {
    state.ledger = { ...state.ledger, budget: gpuSeconds }
    changed()
    return `budget set${by === undefined ? '' : ` by ${by}`}: ${balance(state.ledger)}`
  }, {
    validator: (given?: { gpuSeconds?: unknown; by?: unknown }) => {
      const gpuSeconds = given?.gpuSeconds
      if (gpuSeconds !== null && !(typeof gpuSeconds === 'number' && Number.isFinite(gpuSeconds) && gpuSeconds > 0)) throw new Error(`gpuSeconds: expected a positive number, or null for no limit, got ${JSON.stringify(gpuSeconds ?? null)}`)
      if (given?.by !== undefined && typeof given.by !== 'string') throw new Error('by: expected a name')
    },
    description: 'Set the budget of the sweep in GPU-seconds. Example: {"gpuSeconds": 7200, "by": "ann"}; null takes the limit away.',
  })

  /** Begins a trial; one of another sweep that holds its id is told to go first. */
  const begin = async (index: number, point: TrialPoint, prepared: Prepared): Promise<void> => {
    state.begun.push(index)
    state.open[index] = { waitsFor: null }
    run.show(lineOf(index), { stage: 'trial', state: 'running', note: words(point) })
    changed()
    const args: [TrialInput] = [{ sweepId, chain, index, point, sweep, run: shared, prepared }]
    const workflowId = idOf(index)
    for (;;) {
      try {
        const child = await startChild<typeof sweepTrial>('sweepTrial', {
          workflowId, args, memo: { [trialMemo]: chain }, staticSummary: words(point),
          parentClosePolicy: ParentClosePolicy.ABANDON, cancellationType: ChildWorkflowCancellationType.ABANDON,
        })
        own.add(index)
        child.result().catch(() => { lost(index) })
        return
      } catch (e) {
        if (!(e instanceof WorkflowExecutionAlreadyStartedError)) throw e
        const [there] = await trialStates([workflowId])
        if (there?.isOpen === true && there.chain === chain) return // begun before a reset of this sweep
        if (there?.isOpen === true) await getExternalWorkflowHandle(workflowId).cancel().catch(() => undefined)
        await sleep('2 seconds')
      }
    }
  }

  /** Of trials that are not this execution's own: those that are gone have said so, or never will. */
  const lookAfterOthers = async (): Promise<void> => {
    const others = openOnes().filter((i) => !own.has(i))
    const states = await trialStates(others.map(idOf))
    others.forEach((index, i) => {
      if (states[i]?.isOpen !== true || states[i].chain !== chain) lost(index)
    })
  }

  const change = async (): Promise<void> => {
    const seen = changes
    const others = openOnes().some((i) => !own.has(i))
    if (!others) return await condition(() => changes !== seen)
    if (!(await condition(() => changes !== seen, lookAfter))) await lookAfterOthers()
  }

  const work: Window['work'] = async (prepared, between) => {
    for (;;) {
      await run.released()
      const next = order.find((i) => !state.begun.includes(i))
      const point = next === undefined ? undefined : points[next]
      const held = next === undefined ? null : reserve(state.ledger, next, estimate(state.ledger, sweep.expectedGpuSeconds))
      if (next !== undefined && point !== undefined && held !== null && working() < sweep.parallel) {
        state.ledger = held
        await begin(next, point, prepared)
      } else if ((next === undefined || held === null) && working() === 0 && (openOnes().length === 0 || sweep.parkedTrials === 'leave')) {
        return
      } else {
        await change()
      }
      await between()
    }
  }

  return {
    state,
    work: async (prepared, between) => {
      const beside = new CancellationScope()
      const passing = beside.run(() => passOnPauses(run, () => openOnes().map(idOf))).catch(() => undefined)
      try {
        await work(prepared, between)
      } catch (e) {
        if (!(e instanceof ContinueAsNew)) await CancellationScope.nonCancellable(() => cancelAll(openOnes().map(idOf), () => openOnes().length === 0))
        throw e
      } finally {
        beside.cancel()
        await passing
      }
    },
    outcomes: () => points.map((point, index) =>
      state.outcomes.find((o) => o.index === index) ?? { index, point, status: waitingFor(index) === null ? 'unstarted' : 'parked', workflowId: idOf(index), measurement: null }),
  }
}

/** Whatever ends a sweep early takes its trials along, and waits until they have stopped their jobs. */
const cancelAll = async (ids: readonly string[], allOver: () => boolean): Promise<void> => {
  // one that has just ended cannot be cancelled
  await Promise.all(ids.map((id) => getExternalWorkflowHandle(id).cancel().catch(() => undefined)))
  await condition(allOver, '10 minutes')
}
