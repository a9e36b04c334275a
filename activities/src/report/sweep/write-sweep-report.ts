import type { ControlActivities, SweepReportRequest } from '@cpt/contracts/activities'
import type { Deps } from '../../deps.ts'
import { readSource, type ReportStore } from '../read-source.ts'
import { folderOf, putReport, type ReportPlace } from '../report-folder.ts'
import { timing } from '../timing.ts'
import { renderSweepReport } from './render-sweep-report.ts'
import { verdictWord } from './verdict.ts'

type Place = ReportPlace & { temporal: Pick<Deps['config']['temporal'], 'uiUrl' | 'namespace'> }

/** Reads what a sweep and its trials committed and writes its page, beside a small summary for lists of runs. Safe to repeat. */
export const writeSweepReport =
  ({ store, config, log }: { store: ReportStore; config: Place; log?: Pick<Deps['log'], 'warn'> }): ControlActivities['writeSweepReport'] =>
  async (request) => {
    const fingerprints = fingerprintsOf(request)
    const source = await readSource(store, { fingerprints, decisions: [] }, (what, error) => log?.warn({ err: error, what }, 'report: something could not be read and is shown as missing'))
    const folder = folderOf(request)
    return await putReport(config, folder, renderSweepReport(request, source, (id) => workflowPage(config.temporal, id)), summaryOf(request, fingerprints, folder))
  }

/** The work that the page is about: what the sweep prepared, and the trainings of its trials. */
const fingerprintsOf = ({ lines, trials }: SweepReportRequest): string[] =>
  [...new Set([...lines.map((l) => l.fingerprint), ...trials.map((t) => t.measurement?.training ?? '')])].filter((f) => f !== '')

/** Page of a workflow in the web UI. */
const workflowPage = ({ uiUrl, namespace }: Place['temporal'], workflowId: string): string | null =>
  uiUrl === null || !/^https?:\/\//.test(uiUrl) ? null : `${uiUrl.replace(/\/$/, '')}/namespaces/${encodeURIComponent(namespace)}/workflows/${encodeURIComponent(workflowId)}`

/** What a list of runs shows. */
const summaryOf = (request: SweepReportRequest, fingerprints: string[], folder: string) => {
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
    fingerprints,
    decisions: request.decisions.map((d) => d.uri),
    verdictRef: request.verdictRef,
  }
}
