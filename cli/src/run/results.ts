import type { ArtifactStore } from '@cpt/activities/artifact-store/artifact-store'
import { CompareBenchmarkResult, compareBenchmark } from '@cpt/contracts/evaluate-benchmark'
import type { CptRunResult, RunProgress, StageLine } from '@cpt/contracts/cpt-run'
import { plainText } from '../plain-text.ts'
import { table } from './table.ts'
import { duration } from './words.ts'

const signed = (n: number): string => `${n < 0 ? '−' : '+'}${Math.abs(n).toFixed(3)}`

/** Loss before and after on the held-out sets, with standard errors. */
export const changeTable = (result: CptRunResult): string =>
  table(
    ['held-out text', 'nats/token before', 'after', 'change', '± s.e.'],
    result.change.map((c) => [plainText(c.group), c.nllBefore.toFixed(3), c.nllAfter.toFixed(3), signed(c.deltaNll), c.seNll.toFixed(3)]),
  )

const comparison = async (store: Pick<ArtifactStore, 'record'>, line: StageLine): Promise<string[] | null> => {
  try {
    const record = await store.record(line.fingerprint)
    if (record?.stage !== compareBenchmark.name) return null
    const score = CompareBenchmarkResult.parse(record.result)
    return [plainText(line.key.split('/').at(-1) ?? line.key), score.before.toFixed(3), score.after.toFixed(3), signed(score.difference), score.standardError.toFixed(3), String(score.items)]
  } catch {
    return null
  }
}

/** Benchmarks before and after, read from the store where it can be; null when there are none to show. */
export const benchmarkTable = async (store: Pick<ArtifactStore, 'record'>, progress: RunProgress): Promise<string | null> => {
  const lines = progress.stages.filter((line) => /^[0-9a-f]{64}$/.test(line.fingerprint) && /compare-?benchmark/i.test(`${line.stage} ${line.key}`))
  const rows = (await Promise.all(lines.map((line) => comparison(store, line)))).filter((row) => row !== null)
  return rows.length === 0 ? null : table(['benchmark', 'base', 'after', 'change', '± s.e.', 'items'], rows)
}

export const timeTable = (progress: RunProgress): string =>
  table(
    ['stage', 'time', 'in jobs', ''],
    progress.stages.map((s) => [plainText(s.key), duration(s.seconds), s.state === 'reused' ? '' : duration(s.jobSeconds), s.state === 'reused' ? 'reused' : s.state === 'done' ? '' : s.state]),
  )
