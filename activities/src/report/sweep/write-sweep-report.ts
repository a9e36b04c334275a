import type { ControlActivities, SweepReportRequest } from '@cpt/contracts/activities'
import type { Deps } from '../../deps.ts'
import { readSource, type ReportStore } from '../read-source.ts'
import { folderOf, putReport, type ReportPlace } from '../report-folder.ts'
import { timing } from '../timing.ts'
import type { ReportSource } from '../view.ts'
import { trialsDrawn } from './curves.ts'
import { renderSweepReport } from './render-sweep-report.ts'
import { runPages } from './run-page.ts'
import { sweepViewOf } from './sweep-view.ts'
import { verdictWord } from './verdict.ts'

type Place = ReportPlace & { temporal: Pick<Deps['config']['temporal'], 'uiUrl' | 'namespace'> }

/** Reads the curves of a sweep's trials and writes its page, beside a small summary for lists of runs. Safe to repeat. */
export const writeSweepReport =
  ({ store, config, log }: { store: ReportStore; config: Place; log?: Pick<Deps['log'], 'warn'> }): ControlActivities['writeSweepReport'] =>
  async (request) => {
    const pageOf = runPages(config.temporal)
    const drawn = trialsDrawn(sweepViewOf(request, nothingRead, pageOf)).map((t) => t.measurement?.training ?? '')
    const source = await readSource(store, { fingerprints: drawn, decisions: [] }, (what, error) => log?.warn({ err: error, what }, 'report: something could not be read and is shown as missing'))
    const folder = folderOf(request)
    return await putReport(config, folder, renderSweepReport(request, source, pageOf), summaryOf(request, folder))
  }

const nothingRead: ReportSource = { records: new Map(), curves: new Map(), sourceLines: new Map(), decisions: [] }

/** The work that the page is about: what the sweep prepared, and the trainings of its trials. */
const fingerprintsOf = ({ lines, trials }: SweepReportRequest): string[] =>
  [...new Set([...lines.map((l) => l.fingerprint), ...trials.map((t) => t.measurement?.training ?? '')])].filter((f) => f !== '')

/** What a list of runs shows. */
const summaryOf = (request: SweepReportRequest, folder: string) => {
  const { sweep, run } = request.resolved
  return {
    format: 'cpt-report/1',
    run: sweep.name,
    workflowId: request.workflowId,
    runId: request.runId,
    folder,
    startedAtMs: request.startedAtMs,
    wallSeconds: timing(request).totalSeconds,
    verdict: verdictWord(request),
    owner: sweep.owner,
    targetLanguage: run.spec.targetLanguage,
    tokens: request.trials.reduce((sum, t) => sum + (t.measurement?.tokens ?? 0), 0),
    change: [],
    modelPath: null,
    chosen: request.verdict?.chosen ?? null,
    // what `cpt gc` keeps as long as the report is there
    fingerprints: fingerprintsOf(request),
    decisions: request.decisions.map((d) => d.uri),
    verdictRef: request.verdictRef,
  }
}
