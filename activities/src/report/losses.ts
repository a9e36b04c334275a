import type { Amendment } from '@cpt/contracts/train'
import { z } from 'zod'
import { chart, ink, legend, valueAxis } from './chart.ts'
import { clip, h, type Html } from './html.ts'
import { count, fixed, plural, ppl, rate, short } from './numbers.ts'
import type { Section } from './page.ts'
import { figure, note, table } from './table.ts'
import { absent, requestOf, type CurvePoint, type Round, type ValidationPoint, type View } from './view.ts'

interface Phase {
  round: Round
  from: number
  points: readonly CurvePoint[]
  validations: readonly ValidationPoint[]
  restarts: readonly { attempt: number; step: number; tokens: number }[]
}

const maxPoints = 1600
const ofSchedule = z.object({ schedule: z.object({ startTokens: z.number() }) })

/** Training loss over all rounds on one axis of tokens, with its learning rate and every restart. */
export const losses = (view: View): Section => {
  const id = 'loss'
  const title = 'Loss over tokens'
  const phases = phasesOf(view)
  const key = view.rounds[0]?.trainKey ?? 'train'
  if (phases.length === 0) return { id, title, body: absent(view, key, 'training curve') }
  const restarts = phases.flatMap((p) => p.restarts.map((r) => ({ ...r, at: p.from + r.tokens, round: p.round.label })))
  const validated = phases.some((p) => p.validations.length > 0)
  const body = h`
${figure(validated ? 'Training loss, loss of the frozen sets, and learning rate' : 'Training loss and learning rate', h`${legend([{ name: 'loss of each step', colour: 'var(--c6)', shape: 'line' }, { name: 'running mean', colour: ink.accent, shape: 'line' }, ...(validated ? [{ name: 'frozen sets', colour: 'var(--c3)', shape: 'line' as const }, { name: 'best step of a round', colour: 'var(--c3)', shape: 'dot' as const }] : []), { name: 'learning rate', colour: 'var(--c2)', shape: 'line' }, ...(restarts.length === 0 ? [] : [{ name: `restart (${restarts.length})`, colour: ink.bad, shape: 'dash' as const }])])}${curve(phases, restarts.map((r) => r.at))}`)}
${table<Phase>(
  [
    { head: 'Round', cell: (p) => p.round.label },
    { head: 'Tokens', numeric: true, cell: (p) => count(p.round.train?.tokens ?? 0) },
    { head: 'Steps', numeric: true, cell: (p) => count(p.round.train?.steps ?? 0) },
    { head: 'Loss at the end', numeric: true, cell: (p) => fixed(p.round.train?.finalLoss) },
    { head: 'Perplexity', numeric: true, cell: (p) => ppl(Math.exp(p.round.train?.finalLoss ?? Number.NaN)) },
    { head: 'Learning rate at the end', numeric: true, cell: (p) => rate(p.points.at(-1)?.lr ?? 0) },
    { head: 'Tokens per second', numeric: true, cell: (p) => count(Math.round(p.round.train?.tokensPerSecond ?? 0)) },
    { head: 'Restarts', numeric: true, cell: (p) => count(p.restarts.length) },
    ...(validated ? [{ head: 'Best step', numeric: true, cell: (p: Phase) => (p.round.train?.best === undefined ? '' : count(p.round.train.best.step)) }, { head: 'Frozen sets there', numeric: true, cell: (p: Phase) => fixed(p.round.train?.best?.nllPerToken) }] : []),
    ...(phases.some((p) => skippedBy(p).length > 0) ? [{ head: 'Tokens skipped', numeric: true, cell: (p: Phase) => count(tokensOf(skippedBy(p))) }] : []),
  ],
  phases,
)}
${phases.map(skippedIn)}
${takenFrom(view, phases)}
${restarts.length === 0 ? h`<p>No job had to be restarted.</p>` : h`<p>${restarts.map((r) => `${r.round}: attempt ${r.attempt} went on from step ${count(r.step)} (${plural(r.tokens, 'token')} into the round).`).join(' ')} Each goes on from its last checkpoint: no token is trained twice, none is left out.</p>`}
${note('Loss in nats per target token of the global batch. It follows the mixture: a round of harder or other text starts at another level, which is no loss of ability. What the model can do is measured on the frozen sets below.')}`
  return { id, title, body }
}

const skippedBy = (p: Phase): readonly Amendment[] => p.round.train?.amendments ?? []
const tokensOf = (skipped: readonly Amendment[]): number => skipped.reduce((sum, a) => sum + a.toToken - a.fromToken, 0)
const why = { 'spike': 'the loss spiked', 'not-finite': 'the loss or its gradient was no number', 'weights-not-finite': 'the weights were no numbers any more' } as const

/** The amendments of a round, in words: trained + skipped = planned. */
const skippedIn = (p: Phase): Html => {
  const skipped = skippedBy(p)
  if (skipped.length === 0) return h``
  const planned = p.round.train?.tokens ?? 0
  const windows = skipped.map((a) => `tokens ${count(a.fromToken)} to ${count(a.toToken)} (${why[a.reason]} at step ${count(a.step)})`).join('; ')
  return h`<p>${p.round.label}: of ${count(planned)} planned tokens ${count(planned - tokensOf(skipped))} were trained and ${count(tokensOf(skipped))} skipped: ${windows}. The round went on from the weights that it had where each window begins.</p>`
}

/** Of which step the model is that was evaluated and exported, where the frozen sets were looked at on the way. */
const takenFrom = (view: View, phases: readonly Phase[]): Html => {
  const last = phases.at(-1)
  const train = last?.round.train
  if (last === undefined || train?.best === undefined) return h``
  const best = `step ${count(train.best.step)} of ${last.round.label}, where the frozen sets had their lowest loss of that round (${fixed(train.best.nllPerToken)} nats per token)`
  if (train.best.step === train.steps) return h`<p>The final model is that of the last step, ${best}.</p>`
  return view.request.spec.training.take === 'best' ? h`<p>The final model is that of ${best}.</p>` : h`<p>The final model is that of the last step, ${count(train.steps)}; the best was ${best}. <code>training.take: best</code> would take it.</p>`
}

const phasesOf = (view: View): Phase[] => {
  let trained = 0
  return view.rounds.flatMap((round) => {
    if (round.train === null) return []
    const planned = ofSchedule.safeParse(requestOf(view, round.trainKey)).data?.schedule.startTokens
    const from = planned ?? trained
    trained = from + round.train.tokens
    return [{ round, from, points: view.source.curves.get(view.lines.get(round.trainKey)?.fingerprint ?? '') ?? [], validations: view.source.validations?.get(view.lines.get(round.trainKey)?.fingerprint ?? '') ?? [], restarts: round.train.restarts }]
  })
}

const curve = (phases: readonly Phase[], restarts: readonly number[]): Html => {
  const points = phases.flatMap((p) => p.points.map((x) => ({ ...x, tokens: p.from + x.tokens }))).filter((p) => Number.isFinite(p.loss))
  if (points.length === 0) return h`<p class="absent">The curve files were not found.</p>`
  const shown = thin(points)
  const smooth = runningMean(shown, Math.max(3, Math.round(shown.length / 40)))
  const validations = phases.filter((p) => p.validations.length > 0)
  const best = validations.flatMap((p) => (p.round.train?.best === undefined ? [] : [[p.from + p.round.train.best.tokens, p.round.train.best.nllPerToken]]))
  const end = Math.max(...phases.map((p) => p.from + (p.round.train?.tokens ?? 0)))
  const axis = (title: string, gridIndex: number, more: Record<string, unknown>) => valueAxis(title, { gridIndex, min: 0, max: end, axisLabel: { color: ink.soft, formatter: (v: number) => short(v) }, splitLine: { show: false }, ...more })
  return chart('curve', `Loss from ${fixed(smooth[0])} to ${fixed(smooth.at(-1))} nats per token over ${count(end)} tokens, ${restarts.length} restarts${best.map(([tokens = 0, loss]) => `, frozen sets best at ${count(tokens)} tokens with ${fixed(loss)}`).join('')}`, 470, {
    grid: [
      { left: 64, right: 24, top: 26, height: 278 },
      { left: 64, right: 24, top: 336, height: 78 },
    ],
    xAxis: [axis('', 0, { axisLabel: { show: false } }), axis('tokens trained', 1, {})],
    yAxis: [valueAxis('loss (nats/token)', { gridIndex: 0, scale: true, nameGap: 42 }), valueAxis('learning rate', { gridIndex: 1, nameGap: 46, splitNumber: 2, axisLabel: { color: ink.soft, formatter: (v: number) => rate(v) } })],
    series: [
      { type: 'line', xAxisIndex: 0, yAxisIndex: 0, symbol: 'none', lineStyle: { color: 'var(--c6)', width: 1, opacity: 0.65 }, data: shown.map((p) => [p.tokens, p.loss]), markLine: marks(phases, restarts) },
      { type: 'line', xAxisIndex: 0, yAxisIndex: 0, symbol: 'none', lineStyle: { color: ink.accent, width: 2.2 }, data: shown.map((p, i) => [p.tokens, smooth[i]]) },
      ...validations.map((p) => ({ type: 'line', xAxisIndex: 0, yAxisIndex: 0, symbol: 'circle', symbolSize: 4, itemStyle: { color: 'var(--c3)' }, lineStyle: { color: 'var(--c3)', width: 1.8 }, data: p.validations.map((x) => [p.from + x.tokens, x.nllPerToken]) })),
      ...(best.length === 0 ? [] : [{ type: 'scatter', xAxisIndex: 0, yAxisIndex: 0, symbolSize: 11, itemStyle: { color: 'var(--c3)' }, data: best }]),
      { type: 'line', xAxisIndex: 1, yAxisIndex: 1, symbol: 'none', lineStyle: { color: 'var(--c2)', width: 1.8 }, data: shown.map((p) => [p.tokens, p.lr]) },
    ],
  })
}

const marks = (phases: readonly Phase[], restarts: readonly number[]) => ({
  silent: true,
  symbol: 'none',
  data: [
    ...phases.map((p) => ({ xAxis: p.from, lineStyle: { color: ink.soft, type: 'solid', width: 1, opacity: 0.6 }, label: { show: true, position: 'end', align: 'left', color: ink.soft, fontSize: 11, distance: 5, formatter: () => clip(p.round.label, 22) } })),
    ...restarts.map((at) => ({ xAxis: at, lineStyle: { color: ink.bad, type: 'dashed', width: 1.4 }, label: { show: false } })),
  ],
})

/** At most `maxPoints` points, each the mean of its neighbours: a run of a million steps still makes a small page. */
export const thin = (points: readonly CurvePoint[]): CurvePoint[] => {
  const size = Math.ceil(points.length / maxPoints)
  if (size <= 1) return [...points]
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const part = points.slice(i * size, (i + 1) * size)
    const last = part.at(-1) ?? { step: 0, tokens: 0, loss: 0, lr: 0 }
    return { ...last, loss: part.reduce((a, p) => a + p.loss, 0) / part.length }
  })
}

const runningMean = (points: readonly CurvePoint[], window: number): number[] => {
  const half = Math.floor(window / 2)
  return points.map((_, i) => {
    const part = points.slice(Math.max(0, i - half), i + half + 1)
    return part.reduce((a, p) => a + p.loss, 0) / part.length
  })
}
