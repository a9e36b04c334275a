import { z } from 'zod'
import { h, type Html } from './html.ts'
import { fixed, signed } from './numbers.ts'
import type { Section } from './page.ts'
import { verdictBadge } from './summary.ts'
import { note, table } from './table.ts'
import type { View } from './view.ts'

const Check = z.looseObject({ name: z.string(), verdict: z.string(), value: z.number().nullable().catch(null), standardError: z.number().nullable().catch(null), bound: z.number().nullable().catch(null), note: z.string().catch('') })
type Check = z.infer<typeof Check>
const GateOutput = z.looseObject({ verdict: z.string(), checks: z.array(Check).catch([]) })

/** The verdict with the interval behind each of its reasons. */
export const gate = (view: View): Section => {
  const { gate: spec } = view.request.spec
  const decided = view.source.decisions.filter((d) => d.kind === 'gate').flatMap((d) => GateOutput.safeParse(d.output).data ?? [])
  const last = decided.at(-1)
  const body =
    last === undefined
      ? h`<p class="absent">No decision of the gate is on record; the run’s verdict is ${view.request.verdict}.</p>`
      : h`<p>Verdict: ${verdictBadge(last.verdict)}</p>
${table<Check>(
  [
    { head: 'Check', cell: (c) => c.name },
    { head: 'Verdict', cell: (c) => verdictBadge(c.verdict) },
    { head: 'Measured', numeric: true, cell: (c) => (c.value === null ? '–' : `${signed(c.value, 4)} ± ${fixed(c.standardError, 4)}`) },
    { head: 'Bound', numeric: true, cell: (c) => (c.bound === null ? '–' : signed(c.bound, 4)) },
    { head: `Interval of ± ${spec.z} standard errors; dashed: the bound`, cell: (c) => interval(c, spec.z) },
    { head: 'Reason', cell: (c) => c.note },
  ],
  last.checks,
)}
${note(h`A positive value is a change for the worse. A check passes when its whole interval lies on the right side of the bound, fails when all of it lies on the wrong side, and is undecided between; then a person decides. Retained loss may rise by ${spec.retentionToleranceNats} nats per token, the target language must gain ${spec.minGainNats}, a benchmark may lose ${spec.benchmarkMargin} (a share of its items, or nats per byte).`)}`
  return { id: 'gate', title: 'Gate', body }
}

const interval = (c: Check, standardErrors: number): Html | string => {
  if (c.value === null || c.bound === null) return ''
  const half = standardErrors * (c.standardError ?? 0)
  const [low, high] = [Math.min(c.value - half, c.bound, 0), Math.max(c.value + half, c.bound, 0)]
  const width = high - low || 1
  const at = (x: number): string => (6 + (88 * (x - low)) / width).toFixed(1)
  const tone = c.verdict === 'pass' ? 'good' : c.verdict === 'fail' ? 'bad' : 'warn'
  return h`<span class="span ${tone}" title="${signed(c.value - half, 4)} to ${signed(c.value + half, 4)}"><u style="--m:${at(c.bound)}%"></u><i style="--a:${at(c.value - half)}%;--w:${((88 * 2 * half) / width).toFixed(1)}%"></i><b style="--m:${at(c.value)}%"></b></span>`
}
