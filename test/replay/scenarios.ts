import { parkOf, refusal, resolve, resultOf, stageIs, startRun, type RunHandle } from '../harness/runs.ts'
import { briefRun, smallRun } from '../harness/small-run.ts'
import { randomUUID } from 'node:crypto'
import type { AlmrLrSweepInput, AlmrLrSweepResult } from '@cpt/contracts/almr-lr-sweep'
import type { RunProgress } from '@cpt/contracts/cpt-run'
import { controlQueue } from '@cpt/contracts/ids'
import type { ModelTransferInput } from '@cpt/contracts/model-transfer'
import { smallSweep } from '../harness/small-sweep.ts'
import { parkFirstTraining, startSweep, trainKey, trialOf } from '../harness/sweeps.ts'
import { jobsIn } from '../harness/store.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

const atTheEnd = async (run: RunHandle): Promise<RunHandle> => {
  await run.result().catch(() => undefined)
  return run
}
const strict = () => smallRun({ corpus: { ...smallRun().corpus, maxQuarantineRatio: 0 } })
const allow = { patch: { request: { maxQuarantineRatio: 0.1 } } }

/** A run with a benchmark that nobody can read: parked and skipped before its first round and after its last. */
const brokenBenchmarkSkipped = async (system: System, name: string): Promise<RunHandle> => {
  const run = await startRun(system, name, smallRun({ evaluation: { windowTokens: 128, maxTokensPerDoc: 128, benchmarks: [{ name: 'broken', path: 'small:broken-bench.jsonl', kind: 'mcq', shots: 0 }] } }))
  for (const stage of ['base/broken', 'final/broken']) {
    await parkOf(run, stage, 1, 300)
    await resolve(run, { stage, park: 1, action: 'skip', reason: 'file is damaged' })
  }
  await resultOf(run, 600)
  return run
}

const batch = 4096
/** Two trials, the control among them. */
const pair = (over: AlmrLrSweepInput = {}): AlmrLrSweepInput => smallSweep({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [1] }, choice: { retentionToleranceNats: 5 }, ...over })
/** Nobody waits for their end. */
const endless = { tokensPerTrial: 100 * batch }
const begin = (system: System, type: 'almrLrSweep' | 'modelTransfer', input: unknown): Promise<RunHandle> =>
  system.client.workflow.start(type, { taskQueue: controlQueue, workflowId: `${type === 'almrLrSweep' ? 'sweep' : 'transfer'}/${randomUUID().slice(0, 8)}`, args: [input] }) as Promise<RunHandle>
/** One at a time, which keep nothing until they are done. */
const withoutSaves = (seed: number): AlmrLrSweepInput =>
  pair({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [seed] }, parallel: 1, tokensPerTrial: 40 * batch, run: { ...smallSweep().run, placement: { train: { threads: 1, batchTokens: batch, checkpointEverySteps: 1000 } } } })
const trainingSteps = (system: System, jobs: number) =>
  until(`${jobs} trainings to take steps`, async () => (await jobsIn(system.storeDir)).filter((j) => j.isRunning && (j.beat?.step ?? 0) >= 1).length >= jobs, 600)
const asksForApproval = (run: RunHandle) => until(`${run.workflowId} to ask for approval`, async () => (await run.query<RunProgress>('progress')).asks ?? null, 600)
const verdictOf = async (system: System): Promise<ModelTransferInput['verdict']> => ((await (await begin(system, 'almrLrSweep', pair())).result()) as unknown as AlmrLrSweepResult).verdictRef
const transferOf = async (system: System, over: ModelTransferInput = {}): Promise<RunHandle> =>
  begin(system, 'modelTransfer', { verdict: await verdictOf(system), name: 'small', confirmation: { neighbours: 'almr' }, phase: { tokens: 8 * batch }, ...over } satisfies ModelTransferInput)

/** Sweeps, their trials, and transfers. */
const sweeping: Scenario[] = [
  {
    name: 'sweep',
    also: { trial: 'trial-1' },
    play: async (system) => await atTheEnd(await begin(system, 'almrLrSweep', pair())),
  },
  { name: 'sweep-unchanged', play: async (system) => await atTheEnd(await begin(system, 'almrLrSweep', pair({ whenUnchanged: 'end' }))) },
  { name: 'sweep-invalid', play: async (system) => await atTheEnd(await begin(system, 'almrLrSweep', { grid: { almr: [2] } })) },
  {
    name: 'sweep-with-a-parked-trial',
    also: { 'trial-retried': 'trial-0' },
    play: async (system) => {
      const { sweep, index } = await parkFirstTraining(system, () => startSweep(system, withoutSaves(2)))
      await resolve(trialOf(system, sweep, index), { stage: trainKey, park: 1, action: 'retry', by: 'ann' })
      return await atTheEnd(sweep as unknown as RunHandle)
    },
  },
  {
    name: 'sweep-that-leaves-a-parked-trial',
    also: { 'trial-given-up': 'trial-0' },
    play: async (system) => {
      const { sweep, index } = await parkFirstTraining(system, () => startSweep(system, { ...withoutSaves(7), parkedTrials: 'leave' }))
      await atTheEnd(sweep as unknown as RunHandle)
      await resolve(trialOf(system, sweep, index), { stage: trainKey, park: 1, action: 'abort', by: 'ann' })
      await atTheEnd(trialOf(system, sweep, index))
      return sweep as unknown as RunHandle
    },
  },
  {
    name: 'sweep-cancelled',
    also: { 'trial-cancelled': 'trial-0' },
    play: async (system) => {
      const sweep = await begin(system, 'almrLrSweep', pair({ ...endless, grid: { almr: [0.5], peakLrs: [1e-3], seeds: [3] } }))
      await trainingSteps(system, 2)
      await sweep.cancel()
      return await atTheEnd(sweep)
    },
  },
  {
    name: 'sweep-paused',
    also: { 'trial-paused': 'trial-0' },
    play: async (system) => {
      const sweep = await begin(system, 'almrLrSweep', pair({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [4] }, tokensPerTrial: 40 * batch }))
      await trainingSteps(system, 2)
      await sweep.executeUpdate<string, [unknown]>('pause', { args: [{ by: 'ann' }] })
      await until('the trials to pause', async () => (await jobsIn(system.storeDir)).every((j) => !j.isRunning), 300)
      await sweep.executeUpdate<string, [unknown]>('resume', { args: [{ by: 'ann' }] })
      return await atTheEnd(sweep)
    },
  },
  {
    name: 'sweep-over-its-budget',
    play: async (system) => await atTheEnd(await begin(system, 'almrLrSweep', pair({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [5] }, budgetGpuSeconds: 1, expectedGpuSeconds: 2 }))),
  },
  {
    name: 'sweep-with-another-budget',
    play: async (system) => {
      const sweep = await begin(system, 'almrLrSweep', pair({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [6] }, tokensPerTrial: 40 * batch, budgetGpuSeconds: 3, expectedGpuSeconds: 2 }))
      await trainingSteps(system, 1)
      await sweep.executeUpdate<string, [unknown]>('setBudget', { args: [{ gpuSeconds: null, by: 'ann' }] })
      return await atTheEnd(sweep)
    },
  },
  {
    name: 'sweep-continued-as-new',
    serverSettings: { 'limit.historyCount.suggestContinueAsNew': 40 },
    play: async (system) => await atTheEnd(await begin(system, 'almrLrSweep', pair({ grid: { almr: [0.5], peakLrs: [1e-3], seeds: [1, 2] }, parallel: 1 }))),
  },
  {
    name: 'transfer',
    also: { 'transfer-run': 'run', 'transfer-trial': 'trial-0' },
    play: async (system) => {
      const transfer = await transferOf(system)
      await asksForApproval(transfer)
      await transfer.executeUpdate<string, [unknown]>('approve', { args: [{ by: 'ann', reason: 'seen' }] })
      return await atTheEnd(transfer)
    },
  },
  {
    name: 'transfer-refused',
    play: async (system) => {
      const transfer = await transferOf(system)
      await asksForApproval(transfer)
      await transfer.executeUpdate<string, [unknown]>('approve', { args: [{ by: 'ann', approved: false }] })
      return await atTheEnd(transfer)
    },
  },
  {
    name: 'transfer-with-a-parked-run',
    also: { 'transfer-run-given-up': 'run' },
    play: async (system) => {
      const transfer = await transferOf(system, { phase: { tokens: 100_000 * batch } })
      await asksForApproval(transfer)
      await transfer.executeUpdate<string, [unknown]>('approve', { args: [{ by: 'ann', reason: 'seen' }] })
      const { stage, park } = await until(`${transfer.workflowId} to tell what its run waits for`, async () => (await transfer.query<RunProgress>('progress')).waits?.[0] ?? null, 600)
      await transfer.executeUpdate<string, [unknown]>('pause', { args: [{ by: 'ann' }] })
      await transfer.executeUpdate<string, []>('resume')
      await resolve(system.client.workflow.getHandle(`${transfer.workflowId}/run`), { stage, park, action: 'abort', reason: 'too little text', by: 'ann' })
      return await atTheEnd(transfer)
    },
  },
  { name: 'transfer-without-evidence', play: async (system) => await atTheEnd(await begin(system, 'modelTransfer', {})) },
  {
    name: 'transfer-overridden-and-cancelled',
    play: async (system) => {
      const { run } = smallSweep()
      const transfer = await begin(system, 'modelTransfer', { name: 'bold', run, override: { almr: 0.4, peakLr: 1e-3, reason: 'asked for', by: 'ann' }, confirmation: { tokens: 4 * batch }, phase: { tokens: 100 * batch } } satisfies ModelTransferInput)
      await asksForApproval(transfer)
      await transfer.executeUpdate<string, [unknown]>('approve', { args: [{ by: 'ann', reason: 'all the same' }] })
      await trainingSteps(system, 1)
      await transfer.cancel()
      return await atTheEnd(transfer)
    },
  },
]

const dry = (system: System, steps: number): Promise<RunHandle> =>
  system.client.workflow.start('dryTrain', { taskQueue: controlQueue, workflowId: `dry/${randomUUID().slice(0, 8)}`, args: [{ run: briefRun(), steps }] }) as Promise<RunHandle>

/** Trainings on synthetic tokens. */
const drying: Scenario[] = [
  { name: 'dry-train', play: async (system) => await atTheEnd(await dry(system, 4)) },
  {
    name: 'dry-train-cancelled',
    play: async (system) => {
      const run = await dry(system, 10_000)
      await trainingSteps(system, 1)
      await run.cancel()
      return await atTheEnd(run)
    },
  },
]

export interface Scenario {
  /** The history's file name. */
  name: string
  /** Further histories of the same play: file name, and what stands after the run's id in that of the workflow it began. */
  also?: Record<string, string>
  /** What its server is told beside, when it needs one of its own. */
  serverSettings?: Record<string, string | number>
  play: (system: System) => Promise<RunHandle>
}

/** Names of all histories that there should be. */
export const historyNames = (): string[] => scenarios.flatMap((s) => [s.name, ...Object.keys(s.also ?? {})])

/** One run for each way through the workflow; each returns the run when it is closed. */
export const scenarios: Scenario[] = [
  {
    name: 'complete',
    play: async (system) => {
      const run = await startRun(system, 'complete', smallRun())
      await resultOf(run, 600)
      return run
    },
  },
  {
    name: 'complete-from-commits',
    play: async (system) => {
      const run = await startRun(system, 'from-commits', smallRun())
      await resultOf(run, 600)
      return run
    },
  },
  {
    name: 'parked-and-retried',
    play: async (system) => {
      const run = await startRun(system, 'parked', strict())
      await parkOf(run, 'ingest')
      await refusal(run, { stage: 'ingest', park: 1, action: 'skip' })
      await resolve(run, { stage: 'ingest', park: 1, action: 'retry' })
      await parkOf(run, 'ingest', 2)
      await resolve(run, { stage: 'ingest', park: 2, action: 'retry', ...allow, reason: 'known dirt', by: 'ann' })
      await resultOf(run, 600)
      return run
    },
  },
  {
    name: 'benchmark-skipped',
    play: (system) => brokenBenchmarkSkipped(system, 'skipped'),
  },
  {
    name: 'gate-refused',
    play: async (system) => {
      const run = await startRun(system, 'gate', smallRun({ gate: { retentionToleranceNats: 0, minGainNats: 50, benchmarkMargin: 1, z: 1.64 } }))
      await parkOf(run, 'gate', 1, 300)
      await resolve(run, { stage: 'gate', park: 1, action: 'abort' })
      return await atTheEnd(run)
    },
  },
  {
    name: 'cancelled',
    play: async (system) => {
      const run = await startRun(system, 'cancelled', smallRun({ seed: 7 }))
      await stageIs(run, 'hold-out', 'running', 300)
      await run.cancel()
      return await atTheEnd(run)
    },
  },
  {
    name: 'invalid-input',
    play: async (system) => await atTheEnd(await startRun(system, 'invalid', { training: { peakLr: -1 }, pressets: 'quickstart' })),
  },
  {
    name: 'missing-file',
    play: async (system) => await atTheEnd(await startRun(system, 'missing', { corpus: { sources: [{ name: 'gone', path: 'samples:corpus/gone.jsonl' }] } })),
  },
  {
    name: 'aborted',
    play: async (system) => {
      const run = await startRun(system, 'aborted', strict())
      await parkOf(run, 'ingest')
      await resolve(run, { stage: 'ingest', park: 1, action: 'abort', reason: 'wrong file', by: 'ann' })
      return await atTheEnd(run)
    },
  },
  {
    name: 'paused-and-resumed',
    play: async (system) => {
      const run = await startRun(system, 'paused', smallRun())
      await run.executeUpdate<string, [unknown]>('pause', { args: [{ by: 'ann' }] })
      await run.executeUpdate<string, []>('resume')
      await resultOf(run, 600)
      return run
    },
  },
  {
    name: 'continued-as-new',
    serverSettings: { 'limit.historyCount.suggestContinueAsNew': 60 },
    play: (system) => brokenBenchmarkSkipped(system, 'continued'),
  },
  {
    name: 'corpus-committed',
    play: async (system) => {
      const args = [{ ...strict(), corpus: { ...strict().corpus, name: 'small' } }]
      const run: RunHandle = await system.client.workflow.start('corpusPreparation', { taskQueue: controlQueue, workflowId: `corpus/${randomUUID().slice(0, 8)}`, args })
      await parkOf(run, 'ingest')
      await resolve(run, { stage: 'ingest', park: 1, action: 'retry', ...allow, reason: 'known dirt', by: 'ann' })
      return await atTheEnd(run)
    },
  },
  {
    name: 'newest-corpus',
    play: async (system) => {
      const run = await startRun(system, 'newest', smallRun({ corpus: { newest: 'small' } }))
      await resultOf(run, 600)
      return run
    },
  },
  ...sweeping,
  ...drying,
]
