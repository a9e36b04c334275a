import type { SweepReportRequest } from '@cpt/contracts/activities'
import { h } from '../html.ts'
import { renderPage } from '../page.ts'
import type { ReportSource } from '../view.ts'
import { budget } from './budget.ts'
import { cells } from './cells.ts'
import { curves } from './curves.ts'
import { decisions } from './decisions.ts'
import { heatMaps } from './heat-maps.ts'
import { lineage } from './lineage.ts'
import { reproduce } from './reproduce.ts'
import { sweepStyle } from './sweep-style.ts'
import { sweepViewOf, type PageOf } from './sweep-view.ts'
import { tradeOff } from './trade-off.ts'
import { missing, trials } from './trials.ts'
import { verdictHead } from './verdict.ts'

const sections = [heatMaps, tradeOff, curves, cells, trials, missing, budget, decisions, lineage, reproduce]

/** One self-contained page about a sweep. A pure function: the same sweep gives the same bytes. */
export const renderSweepReport = (request: SweepReportRequest, source: ReportSource, pageOf: PageOf): string => {
  const view = sweepViewOf(request, source, pageOf)
  return renderPage({
    title: `${request.resolved.sweep.name} – sweep report`,
    head: verdictHead(view),
    sections: sections.map((section) => section(view)),
    foot: h`${request.workflowId} · ${request.runId}. This file needs no network and holds no document text; its links lead to the Temporal UI.`,
    styles: sweepStyle,
  })
}
