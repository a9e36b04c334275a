import type { ReportRequest } from '@cpt/contracts/activities'
import { asked } from './asked.ts'
import { benchmarks } from './benchmarks.ts'
import { funnel } from './funnel.ts'
import { gate } from './gate.ts'
import { h } from './html.ts'
import { lineage } from './lineage.ts'
import { losses } from './losses.ts'
import { mixture } from './mixture.ts'
import { operator } from './operator.ts'
import { renderPage } from './page.ts'
import { perplexity } from './perplexity.ts'
import { reproduce } from './reproduce.ts'
import { reweighting } from './reweighting.ts'
import { scores } from './scores.ts'
import { summary } from './summary.ts'
import { time } from './time.ts'
import { topics } from './topics.ts'
import { transfer } from './transfer.ts'
import { viewOf, type ReportSource } from './view.ts'

const sections = [asked, transfer, funnel, topics, scores, mixture, losses, perplexity, reweighting, benchmarks, gate, lineage, time, operator, reproduce]

/** One self-contained page about a run. A pure function: the same run gives the same bytes. */
export const renderReport = (request: ReportRequest, source: ReportSource): string => {
  const view = viewOf(request, source)
  return renderPage({
    title: `${request.spec.name} – continual pre-training report`,
    head: summary(view),
    sections: sections.flatMap((section) => section(view) ?? []),
    foot: h`${request.workflowId} · ${request.runId}. Intervals written “a ± b” give one standard error. This file needs no network and holds no document text.`,
  })
}
