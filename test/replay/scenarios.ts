import { parkOf, refusal, resolve, resultOf, stageIs, startRun, type RunHandle } from '../harness/runs.ts'
import { smallRun } from '../harness/small-run.ts'
import type { System } from '../harness/system.ts'

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

export interface Scenario {
  /** The history's file name. */
  name: string
  /** What its server is told beside, when it needs one of its own. */
  serverSettings?: Record<string, string | number>
  play: (system: System) => Promise<RunHandle>
}

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
]
