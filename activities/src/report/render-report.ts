import { createHash } from 'node:crypto'
import type { ReportRequest } from '@cpt/contracts/activities'
import { asked } from './asked.ts'
import { benchmarks } from './benchmarks.ts'
import { funnel } from './funnel.ts'
import { gate } from './gate.ts'
import { clean, h, trusted } from './html.ts'
import { lineage } from './lineage.ts'
import { losses } from './losses.ts'
import { mixture } from './mixture.ts'
import { operator } from './operator.ts'
import { style } from './page-style.ts'
import { perplexity } from './perplexity.ts'
import { reproduce } from './reproduce.ts'
import { reweighting } from './reweighting.ts'
import { scores } from './scores.ts'
import { summary } from './summary.ts'
import { time } from './time.ts'
import { topics } from './topics.ts'
import { viewOf, type ReportSource } from './view.ts'

const sections = [asked, funnel, topics, scores, mixture, losses, perplexity, reweighting, benchmarks, gate, lineage, time, operator, reproduce]

// all that runs in the page: the switch between light and dark, shown only where it works
const script = `const r=document.documentElement,b=document.getElementById('theme');b.hidden=false;b.onclick=()=>{const d=r.dataset.theme?r.dataset.theme==='dark':matchMedia('(prefers-color-scheme:dark)').matches;r.dataset.theme=d?'light':'dark'}`

const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${createHash('sha256').update(script).digest('base64')}'; base-uri 'none'; form-action 'none'`

/** One self-contained page about a run. A pure function: the same run gives the same bytes. */
export const renderReport = (request: ReportRequest, source: ReportSource): string => {
  const view = viewOf(request, source)
  const made = sections.map((section) => section(view))
  const page = h`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${trusted(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${request.spec.name} – continual pre-training report</title>
<style>${trusted(style)}</style>
</head>
<body>
<div class="page">
<nav aria-label="Contents"><button id="theme" type="button" hidden>light / dark</button>
<ol>${made.map((s) => h`<li><a href="#${s.id}">${s.title}</a></li>`)}</ol></nav>
<main>
${summary(view)}
${made.map((s) => h`<section id="${s.id}"><h2>${s.title}</h2>
${s.body}
</section>
`)}
<footer>${request.workflowId} · ${request.runId}. Intervals written “a ± b” give one standard error. This file needs no network and holds no document text.</footer>
</main>
</div>
<script>${trusted(script)}</script>
</body>
</html>
`
  return clean(page.toString())
}
