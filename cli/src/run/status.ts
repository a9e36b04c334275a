import { defineSearchAttributeKey } from '@temporalio/common'
import { DryTrainOutcome } from '@cpt/contracts/dry-train'
import { plainText } from '../plain-text.ts'
import { runPage, type Session } from '../connect.ts'
import { dryWords } from '../train/dry-words.ts'
import { findRun } from './find-run.ts'
import { look } from './look.ts'
import { table } from './table.ts'
import { withSession } from './with-session.ts'
import { duration, liveWords, parkedWords, stageWords } from './words.ts'

const mostRuns = 50
const stageKey = defineSearchAttributeKey('CptStage', 'KEYWORD')
const statusKey = defineSearchAttributeKey('CptStatus', 'KEYWORD')
const print = (text: string): void => void process.stdout.write(`${text}\n`)

/** Runs, sweeps, preparations, transfers and dry trainings; of the trials only those that are open, below the sweep that began them. */
const listed = "WorkflowType IN ('cptRun', 'almrLrSweep', 'corpusPreparation', 'modelTransfer', 'dryTrain') OR (WorkflowType = 'sweepTrial' AND ExecutionStatus = 'Running')"

const listRuns = async (session: Session, json: boolean): Promise<void> => {
  const runs = []
  for await (const w of session.client.workflow.list({ query: listed, pageSize: mostRuns })) {
    const attributes = w.typedSearchAttributes
    const seconds = ((w.closeTime ?? new Date()).getTime() - w.startTime.getTime()) / 1000
    runs.push({ id: w.workflowId, type: w.type, runId: w.runId, state: w.status.name.toLowerCase(), status: attributes.get(statusKey) ?? '', stage: attributes.get(stageKey) ?? '', started: w.startTime.toISOString(), seconds })
    if (runs.length === mostRuns) break
  }
  const ordered = belowTheirSweeps(runs)
  if (json) return print(JSON.stringify(ordered))
  if (runs.length === 0) return print('no runs yet; `npx cpt run` or `npx cpt quickstart` starts one')
  print(table(['run', 'state', 'stage', 'time', 'started'], ordered.map((r) => [`${isTrial(r) ? '  ' : ''}${plainText(r.id)}`, r.state === 'running' && r.status !== '' ? plainText(r.status) : r.state, plainText(r.stage), duration(r.seconds), r.started.slice(0, 16).replace('T', ' ')])))
}

const isTrial = ({ type }: { type: string }): boolean => type === 'sweepTrial'

/** Newest first, and each trial behind the sweep whose id its own begins with; one whose sweep is not listed comes last. */
const belowTheirSweeps = <R extends { id: string; type: string }>(runs: readonly R[]): R[] => {
  const trials = runs.filter(isTrial).sort((a, b) => a.id.localeCompare(b.id, 'en', { numeric: true }))
  const placed = new Set<R>()
  const ordered = runs.filter((r) => !isTrial(r)).flatMap((run) => {
    const own = trials.filter((t) => t.id.startsWith(`${run.id}/`) && !placed.has(t))
    for (const trial of own) placed.add(trial)
    return [run, ...own]
  })
  return [...ordered, ...trials.filter((t) => !placed.has(t))]
}

const showRun = async (session: Session, named: string, json: boolean): Promise<void> => {
  const id = await findRun(session, named)
  const sight = await look(session, id)
  const figures = sight.type === 'dryTrain' && sight.status === 'COMPLETED' ? DryTrainOutcome.safeParse(await session.client.workflow.getHandle(id).result()).data : undefined
  if (json) return print(JSON.stringify({ id, ...sight, ...(figures === undefined ? {} : { result: figures }) }))
  const page = runPage(session, id)
  print(`${id}  ${sight.status.toLowerCase()}${sight.progress === null ? ', and no worker answers' : `, ${sight.progress.status}, ${sight.progress.recoveries} recoveries`}`)
  if (page !== null) print(page)
  if (figures !== undefined) print(`\n${dryWords(figures)}\n`)
  if (sight.progress === null) return
  for (const line of sight.progress.stages) print(stageWords(line))
  for (const live of sight.live) print(`  ${liveWords(live)}`)
  for (const parked of sight.progress.parked) print(`\n${parkedWords(parked, id, page)}`)
  for (const w of sight.progress.waits ?? []) print(`\n${parkedWords({ ...w, logTail: [], sinceMs: 0 }, w.workflowId, runPage(session, w.workflowId))}`)
}

export const status = (named: string | undefined, flags: { json?: boolean; state?: string }): Promise<void> =>
  withSession(flags.state, (session) => (named === undefined ? listRuns(session, flags.json === true) : showRun(session, named, flags.json === true)))
