import type { ReportRequest } from '@cpt/contracts/activities'
import type { CommitRecord } from '@cpt/contracts/artifact'
import type { StageLine } from '@cpt/contracts/cpt-run'
import { sampleMixture } from '@cpt/contracts/sample-mixture'
import type { Stage } from '@cpt/contracts/stage'
import { train } from '@cpt/contracts/train'
import type { z } from 'zod'
import { h, type Html } from './html.ts'

/** One line of a training curve: loss in nats per token, `tokens` trained so far. */
export interface CurvePoint {
  step: number
  tokens: number
  loss: number
  lr: number
}

/** What the frozen sets showed within a phase: nats per token over all of them. */
export interface ValidationPoint {
  step: number
  tokens: number
  nllPerToken: number
}

/** What was read for a report: commit records and curves by fingerprint, and the recorded decisions. */
export interface ReportSource {
  records: ReadonlyMap<string, CommitRecord | null>
  curves: ReadonlyMap<string, readonly CurvePoint[]>
  /** By fingerprint of a training that was validated on its way; absent: none was. */
  validations?: ReadonlyMap<string, readonly ValidationPoint[]>
  /** By fingerprint of an ingest: lines of each source, and how many of them are quarantined. */
  sourceLines: ReadonlyMap<string, ReadonlyMap<string, { lines: number; quarantined: number }>>
  decisions: readonly { key: string; kind: string; inputs: unknown; output: unknown }[]
}

/** A round of the plan: its place, and the keys of its lines. */
export interface Round {
  stage: string
  number: number
  label: string
  order: 'perplexity' | 'random'
  plan: z.output<typeof sampleMixture.result> | null
  train: z.output<typeof train.result> | null
  trainKey: string
}

export interface View {
  request: ReportRequest
  source: ReportSource
  lines: ReadonlyMap<string, StageLine>
  rounds: readonly Round[]
}

export const viewOf = (request: ReportRequest, source: ReportSource): View => {
  const view = { request, source, lines: new Map(request.lines.map((l) => [l.key, l])), rounds: [] }
  return { ...view, rounds: roundsOf(view) }
}

/** The result of a line, or null where the line or its record is missing, or the record is not of this contract. */
export const resultOf = <S extends Stage>(view: View, key: string, stage: S): z.output<S['result']> | null => {
  const parsed = stage.result.safeParse(recordOf(view, key)?.result)
  return parsed.success ? (parsed.data as z.output<S['result']>) : null
}

export const recordOf = (view: View, key: string): CommitRecord | null => view.source.records.get(view.lines.get(key)?.fingerprint ?? '') ?? null

/** The field of a line's request, unchecked. */
export const requestOf = (view: View, key: string): Record<string, unknown> => {
  const request = recordOf(view, key)?.request
  return typeof request === 'object' && request !== null ? (request as Record<string, unknown>) : {}
}

const roundsOf = (view: View): Round[] =>
  view.request.spec.plan.flatMap((stage) =>
    Array.from({ length: stage.rounds }, (_, i) => {
      const prefix = `${stage.name}/round-${i + 1}`
      return {
        stage: stage.name,
        number: i + 1,
        label: stage.rounds === 1 ? stage.name : `${stage.name} ${i + 1}`,
        order: stage.order,
        plan: resultOf(view, `${prefix}/sample-mixture`, sampleMixture),
        train: resultOf(view, `${prefix}/train`, train),
        trainKey: `${prefix}/train`,
      }
    }),
  )

/** Says in the place of numbers why there are none. */
export const absent = (view: View, key: string, what: string): Html => {
  const line = view.lines.get(key)
  const why =
    line === undefined
      ? 'this run has no such stage'
      : line.state === 'skipped'
        ? (view.request.spec.corpus.off ?? []).some((stage) => stage === key) ? 'the input has the stage off' : 'the stage was skipped'
        : recordOf(view, key) !== null
          ? 'its record is not of a form this report can read'
          : line.state === 'done' || line.state === 'reused'
            ? 'its commit record was not found'
            : `the stage is ${line.state}`
  return h`<p class="absent">No ${what} to show: ${why} (<code>${key}</code>).</p>`
}
