import type { AlmrLrSweepInput, AlmrLrSweepResult, SweepSpec } from './almr-lr-sweep.ts'
import type { ArtifactRef } from './artifact.ts'
import type { CommittedCorpus, CorpusCommit, CorpusToCommit } from './committed-corpus.ts'
import type { CptRunInput, CptRunSpec, Decision, StageLine } from './cpt-run.ts'
import type { ModelTransferInput, TransferOverride, TransferSpec } from './model-transfer.ts'
import type { VerdictFile } from './sweep-verdict.ts'
import type { LanguageLoss, Ledger, SweepVerdict, TrialOutcome } from './sweep.ts'
import type { StageCall, StageOutcome } from './stage.ts'
import type { StageKey, stages } from './stages.ts'

/** Every stage is one activity of the same shape. */
export type StageActivities = {
  [K in StageKey]: (call: StageCall<(typeof stages)[K]> & StageAddress) => Promise<StageOutcome<(typeof stages)[K]>>
}

/**
 * A run as one asker of jobs, whatever executions it goes through: the workflow that a person started and the first run
 * of its chain, the same for its children, after continue-as-new and after a reset.
 */
export interface RunIdentity {
  workflowId: string
  firstRunId: string
}

/** Which line of which run asks, and how many decisions an operator has made on it (each refills the retry budget). */
export interface StageAddress {
  run: RunIdentity
  key: string
  decision: number
}

/** A run with every default filled in, every file found and its digest taken. */
export interface ResolvedRun {
  spec: CptRunSpec
  /** A source that is a folder of files has one entry for each, whose path in the folder is `part`; `index` is of tokens. */
  sources: { name: string; part?: string | undefined; file: ArtifactRef; index?: ArtifactRef | undefined }[]
  benchmarks: { name: string; items: ArtifactRef }[]
  base: ArtifactRef
  tokenizer: ArtifactRef
  /** The base with the tokenizer of base.tokenizer, once it is made: what is trained, and scores. */
  extended?: ArtifactRef | undefined
  /** What scores the corpus where that is not the base. */
  scorer?: ArtifactRef | undefined
  scorerParameters?: number | undefined
  parameters: number
  /** Encoders that classify, by the path that the input gives. */
  encoders?: Record<string, ArtifactRef> | undefined
  /** The committed corpus that an alias stood for; absent where the input gave its own sources. */
  corpus?: Pick<CommittedCorpus, 'name' | 'number'> | undefined
}

/** A decision with its inputs, kept for the report; only the returned value is used. */
export interface DecisionRecord<T> {
  run: RunIdentity
  key: string
  kind: 'reweight' | 'gate' | 'mixture' | 'confirmation' | 'approval'
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

/** What the page of a sweep is made from; `base` is null until the base was measured. */
export interface SweepReportRequest {
  workflowId: string
  runId: string
  startedAtMs: number
  resolved: ResolvedSweep
  base: Record<'added' | 'retained', LanguageLoss> | null
  trials: TrialOutcome[]
  verdict: SweepVerdict | null
  /** The verdict as it was kept: what a transfer cites. */
  verdictRef: ArtifactRef | null
  ledger: Ledger
  lines: StageLine[]
  decisions: { key: string; kind: string; uri: string }[]
  operator: Decision[]
}

/** What the reaper did: jobs (folder, who asked) that it stopped and why, and those it left though nobody seems to want them. */
export interface ReapReport {
  looked: number
  stopped: { job: string; askedBy: string[]; why: string }[]
  left: { job: string; askedBy: string[]; why: string }[]
}

/** How the activity of a line fails that a person has paused, and how its job ends: nothing failed, and nobody is asked. */
export const pausedType = 'Paused'

/** A sweep with every default filled in, and the run that its trials share, with its files found. */
export interface ResolvedSweep {
  sweep: SweepSpec
  run: ResolvedRun
}

/** A transfer with every default filled in, the evidence read and the target found. */
export interface ResolvedTransfer {
  spec: TransferSpec
  evidence: { sweepId: string; verdictRef: ArtifactRef; verdict: SweepVerdict; sameTokenizer: boolean } | null
  override: TransferOverride | null
  /** What is transferred; the learning rate is the proxy's. */
  chosen: { almr: number; peakLr: number }
  /** What the trials on the target share. */
  trials: SweepSpec
  /** The run on the target that it comes to, but for what the confirmation adds to its lineage. */
  run: ResolvedRun
}

export interface ControlActivities {
  resolveInput(input: CptRunInput): Promise<ResolvedRun>
  resolveTransfer(input: ModelTransferInput): Promise<ResolvedTransfer>
  resolveSweep(input: AlmrLrSweepInput): Promise<ResolvedSweep>
  /** The verdict that an earlier sweep of exactly the same came to, where nothing is left to do about it. */
  sweptBefore(resolved: ResolvedSweep): Promise<Pick<AlmrLrSweepResult, 'verdict' | 'verdictRef' | 'report' | 'trials'> & { workflowId: string } | null>
  rememberSweep(swept: { resolved: ResolvedSweep; verdict: ArtifactRef; workflowId: string; report: string | null }): Promise<void>
  commitVerdict(file: VerdictFile): Promise<{ verdict: SweepVerdict; verdictRef: ArtifactRef }>
  readVerdict(cited: { uri: string; sha256: string }): Promise<VerdictFile & { verdictRef: ArtifactRef }>
  /** Seconds of all jobs of one line, and of the work of that fingerprint. */
  trialCost(line: { run: RunIdentity; key: string; fingerprint: string | null }): Promise<{ spentSeconds: number; workSeconds: number }>
  trialStates(ids: string[]): Promise<{ id: string; isOpen: boolean; chain: string | null }[]>
  /** Cancels trials whose sweep was terminated or failed. */
  reapTrials(): Promise<{ looked: number; cancelled: string[] }>
  recordDecision(record: DecisionRecord<unknown>): Promise<{ output: unknown; uri: string; sha256: string }>
  /** Commits a prepared corpus under its name; the same content as the newest of that name adds nothing. */
  commitCorpus(corpus: CorpusToCommit): Promise<CorpusCommit>
  /** Stops whatever jobs a closed or abandoned stage left behind; returns how many were ended. */
  ensureStopped(line: { run: RunIdentity; key: string }): Promise<{ stopped: number }>
  /** Lets the jobs of these lines leave at their next commit; returns how many were told, and how many others want too. */
  pauseJobs(lines: { run: RunIdentity; keys: string[] }): Promise<{ paused: number; shared: number }>
  resumeJobs(lines: { run: RunIdentity; keys: string[] }): Promise<void>
  /** Stops jobs that only closed runs asked for. Fails, and so stops nothing, where the server cannot be asked. */
  reapJobs(): Promise<ReapReport>
  writeReport(request: ReportRequest): Promise<{ path: string; url: string }>
  writeSweepReport(request: SweepReportRequest): Promise<{ path: string; url: string }>
}

export type Activities = StageActivities & ControlActivities
