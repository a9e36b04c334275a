import type { ArtifactRef } from './artifact.ts'
import type { CptRunInput, CptRunSpec, Decision, StageLine } from './cpt-run.ts'
import type { StageCall, StageOutcome } from './stage.ts'
import type { StageKey, stages } from './stages.ts'

/** Every stage is one activity of the same shape. */
export type StageActivities = {
  [K in StageKey]: (call: StageCall<(typeof stages)[K]> & StageAddress) => Promise<StageOutcome<(typeof stages)[K]>>
}

/** Which line of which run asks, and how many decisions an operator has made on it (each refills the retry budget). */
export interface StageAddress {
  key: string
  decision: number
}

/** A run with every default filled in, every file found and its digest taken. */
export interface ResolvedRun {
  spec: CptRunSpec
  sources: { name: string; file: ArtifactRef }[]
  benchmarks: { name: string; items: ArtifactRef }[]
  base: ArtifactRef
  tokenizer: ArtifactRef
  parameters: number
}

/** A decision with its inputs, kept for the report; only the returned value is used. */
export interface DecisionRecord<T> {
  run: string
  key: string
  kind: 'reweight' | 'gate' | 'mixture'
  inputs: unknown
  output: T
}

export interface ReportRequest {
  run: string
  workflowId: string
  runId: string
  startedAtMs: number
  spec: CptRunSpec
  resolved: Omit<ResolvedRun, 'spec'>
  lines: StageLine[]
  decisions: { key: string; kind: string; uri: string }[]
  operator: Decision[]
  verdict: string
  modelPath: string | null
}

export interface ControlActivities {
  resolveInput(input: CptRunInput): Promise<ResolvedRun>
  recordDecision(record: DecisionRecord<unknown>): Promise<{ output: unknown; uri: string }>
  /** Stops whatever jobs a closed or abandoned stage left behind; returns how many were ended. */
  ensureStopped(stage: { key: string; fingerprint: string | null }): Promise<{ stopped: number }>
  writeReport(request: ReportRequest): Promise<{ path: string; url: string }>
}

export type Activities = StageActivities & ControlActivities
