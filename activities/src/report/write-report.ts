import type { ControlActivities, ReportRequest } from '@cpt/contracts/activities'
import type { Deps } from '../deps.ts'
import { readSource, type ReportStore } from './read-source.ts'
import { renderReport } from './render-report.ts'
import { folderOf, putReport, type ReportPlace } from './report-folder.ts'
import { changes } from './summary.ts'
import { timing } from './timing.ts'
import { viewOf, type ReportSource } from './view.ts'

/** Reads what a run committed and writes its page, beside a small summary for lists of runs. Safe to repeat. */
export const writeReport =
  ({ store, config, log }: { store: ReportStore; config: ReportPlace; log?: Pick<Deps['log'], 'warn'> }): ControlActivities['writeReport'] =>
  async (request) => {
    const source = await readSource(store, { fingerprints: request.lines.map((l) => l.fingerprint), decisions: [...request.decisions.map(({ key, kind, uri }) => ({ key, kind, uri })), ...decisionsOfLineage(request)] }, (what, error) => log?.warn({ err: error, what }, 'report: something could not be read and is shown as missing'))
    const folder = folderOf(request)
    return await putReport(config, folder, renderReport(request, source), summaryOf(request, source, folder))
  }

/** Decisions of other runs that led to this one, as the confirmation and the approval of a transfer. */
const decisionsOfLineage = ({ spec: { lineage = [] } }: ReportRequest) => lineage.filter((l) => l.uri.startsWith('decisions/')).map(({ what, uri, sha256 }) => ({ key: what, kind: 'lineage', uri, sha256 }))

/** What a list of runs shows. */
const summaryOf = (request: ReportRequest, source: ReportSource, folder: string) => {
  const view = viewOf(request, source)
  return {
    format: 'cpt-report/1',
    run: request.run,
    workflowId: request.workflowId,
    runId: request.runId,
    folder,
    startedAtMs: request.startedAtMs,
    wallSeconds: timing(request).totalSeconds,
    verdict: request.verdict,
    owner: request.spec.owner,
    targetLanguage: request.spec.targetLanguage,
    tokens: view.rounds.reduce((sum, r) => sum + (r.train?.tokens ?? 0), 0),
    change: (changes(view) ?? []).map(({ group, deltaNll, seNll }) => ({ group, deltaNll, seNll })),
    modelPath: request.modelPath,
    // what `cpt gc` keeps as long as the report is there
    fingerprints: [...source.records.keys()],
    decisions: request.decisions.map((d) => d.uri),
    lineage: request.spec.lineage ?? [],
  }
}
