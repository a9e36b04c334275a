import { setTimeout as sleep } from 'node:timers/promises'
import { openStore } from '@cpt/activities/artifact-store/open-store'
import type { Config } from '@cpt/activities/config'
import { ArtifactRef } from '@cpt/contracts/artifact'
import { CptRunResult } from '@cpt/contracts/cpt-run'
import { DryTrainOutcome } from '@cpt/contracts/dry-train'
import { SweepVerdict } from '@cpt/contracts/sweep'
import { z } from 'zod'
import { CliError, exitCodes, messageOf } from '../cli-error.ts'
import { runPage, type Session } from '../connect.ts'
import { plainText } from '../plain-text.ts'
import { dryWords } from '../train/dry-words.ts'
import { verdictWords } from '../sweep/verdict-words.ts'
import { benchmarkTable, changeTable, timeTable } from './results.ts'
import type { Ending } from './watch.ts'
import { quantity } from './words.ts'

const tries = 5

const resultOf = async (session: Session, workflowId: string): Promise<unknown> => {
  const { isGrpcServiceError } = await import('@temporalio/client')
  for (let n = 1; ; n++) {
    try {
      return await session.client.workflow.getHandle(workflowId).result()
    } catch (error) {
      if (n === tries || !isGrpcServiceError(error)) throw error
      await sleep(1000)
    }
  }
}

/** The innermost failure says what went wrong; those around it only say where. */
const rootOf = (error: unknown): Error => {
  let root = error instanceof Error ? error : new Error(String(error))
  while (root.cause instanceof Error) root = root.cause
  return root
}

/** How a workflow failed, for a person. */
export const failureOf = (error: unknown, workflowId: string, status: string, page: string | null): CliError => {
  const root = rootOf(error)
  const type = 'type' in root && typeof root.type === 'string' ? root.type : status.toLowerCase()
  return new CliError(type === 'InvalidInput' ? 'usage' : 'failed', `${workflowId} ended as ${status.toLowerCase()}: ${type}: ${messageOf(root)}`, page === null ? 'See docs/runbook.md for this type.' : `See docs/runbook.md for this type, and ${page}`)
}

const SweepEnd = z.object({ state: z.enum(['complete', 'needs-attention', 'unchanged']), verdict: SweepVerdict, verdictRef: ArtifactRef, report: z.string().nullable() })

/** Prints how a run ended: tables, verdict, model and report. Throws a CliError when it failed. */
export const tellEnding = async (session: Session, config: Config, workflowId: string, ending: Exclude<Ending, { how: 'interrupted' }>): Promise<void> => {
  const print = (text: string) => void process.stdout.write(`${text}\n`)
  const page = runPage(session, workflowId)
  let value: unknown
  try {
    value = await resultOf(session, workflowId)
  } catch (error) {
    throw failureOf(error, workflowId, ending.status, page)
  }
  const sweep = SweepEnd.safeParse(value)
  if (sweep.success) {
    const { state, verdict, verdictRef, report } = sweep.data
    print(`\n${verdictWords(verdict)}\n\nsweep    ${state}\nverdict  ${plainText(verdictRef.uri)}, sha256 ${verdictRef.sha256}`)
    if (report !== null) print(`report   ${plainText(report)}`)
    if (page !== null) print(`page     ${page}`)
    if (state === 'needs-attention') process.exitCode = exitCodes.failed
    return
  }
  const dry = DryTrainOutcome.safeParse(value)
  if (dry.success) return print(`\n${dryWords(dry.data)}${page === null ? '' : `\n\npage     ${page}`}`)
  const parsed = CptRunResult.safeParse(value)
  if (!parsed.success) return print(`${workflowId} completed; its result: ${plainText(JSON.stringify(value))}`)
  const result = parsed.data
  if (ending.progress !== null) {
    print(`\nTime\n${timeTable(ending.progress)}`)
    const benchmarks = await benchmarkTable(openStore(config), ending.progress)
    print(`\nChange of loss on held-out text (negative is better)\n${changeTable(result)}`)
    if (benchmarks !== null) print(`\nBenchmarks\n${benchmarks}`)
    const reused = ending.progress.stages.filter((s) => s.state === 'reused').length
    if (reused > 0) print(`\n${reused} of ${ending.progress.stages.length} stages were committed before and reused.`)
  }
  print(`\ngate     ${result.verdict}\ntokens   ${quantity(result.tokens)}`)
  if (result.model !== null) print(`model    ${plainText(result.model)}`)
  print(`report   ${plainText(result.report)}`)
  if (page !== null) print(`run page ${page}`)
}
