import { countStrata } from '@cpt/contracts/count-strata'
import { labelTopics } from '@cpt/contracts/label-topics'
import { classifyTopics, trainTopicClassifier, type TopicMetrics } from '@cpt/contracts/topics'
import type { z } from 'zod'
import { categoryAxis, chart, ink, legend, valueAxis } from './chart.ts'
import { clip, h, type Html } from './html.ts'
import { count, fixed, percent, plural } from './numbers.ts'
import type { Section } from './page.ts'
import { groupColour, groupTitle, sum } from './strata.ts'
import { bar, details, figure, note, table } from './table.ts'
import { absent, requestOf, resultOf, type Round, type View } from './view.ts'

type Metrics = z.infer<typeof TopicMetrics>

interface TopicRow {
  topic: string
  /** Pages the classifier gave it, and documents left of them to train on. */
  labelled: number
  docs: number
  natural: number
  /** Share of the language's web tokens by round; null where the round has none. */
  byRound: (number | null)[]
}

/** Web pages by topic: as they came, and as each round mixed them. */
export const topics = (view: View): Section => {
  const counted = resultOf(view, 'count-strata', countStrata)?.strata.filter((s) => s.kind === 'web' && s.topic !== null)
  const classified = resultOf(view, 'classify-topics', classifyTopics)?.counts
  const labelled = Object.entries(classified?.byTopic ?? {}).map(([key, pages]) => ({ language: key.slice(0, key.indexOf('/')), topic: key.slice(key.indexOf('/') + 1), pages }))
  const languages = [...new Set([...(counted ?? []), ...labelled].map((s) => s.language))].sort((a, b) => (a === view.request.spec.targetLanguage ? -1 : b === view.request.spec.targetLanguage ? 1 : a < b ? -1 : 1))
  const body = h`
${classified === undefined ? absent(view, 'classify-topics', 'labels') : h`<p>${plural(classified.classified, 'web page')} were given a topic; ${count(classified.lowConfidence)} of them below the least probability, which makes them “Others”. Other kinds of source have no topic.</p>`}
${counted === undefined ? absent(view, 'count-strata', 'natural shares') : ''}
${languages.map((language) => oneLanguage(view, language, (counted ?? []).filter((s) => s.language === language), new Map(labelled.filter((l) => l.language === language).map((l) => [l.topic, l.pages]))))}
<h3>How good the classifiers are</h3>
${labelling(view)}
${classifiers(view)}`
  return { id: 'topics', title: 'Topics before and after', body }
}

const oneLanguage = (view: View, language: string, counted: readonly { topic: string | null; docs: number; tokens: number }[], labelled: ReadonlyMap<string, number>): Html => {
  const total = sum(counted.map((s) => s.tokens))
  const rounds = view.rounds.filter((r) => webShares(r, language).size > 0)
  const shares = rounds.map((r) => webShares(r, language))
  const rows = [...new Set([...counted.map((s) => s.topic ?? ''), ...labelled.keys()])]
    .map((topic): TopicRow => {
      const left = counted.find((s) => s.topic === topic)
      return { topic, labelled: labelled.get(topic) ?? 0, docs: left?.docs ?? 0, natural: (left?.tokens ?? 0) / Math.max(1, total), byRound: shares.map((m) => m.get(topic) ?? null) }
    })
    .sort((a, b) => b.natural - a.natural || b.labelled - a.labelled)
  // a stage that is not reweighted starts again from the natural shares: the last round would hide what moved
  const moved = new Set(view.request.spec.plan.filter((s) => s.reweight).map((s) => s.name))
  const after = Math.max(rounds.findLastIndex((r) => moved.has(r.stage)), moved.size === 0 ? rounds.length - 1 : -1)
  const most = Math.max(0.01, ...rows.flatMap((r) => [r.natural, ...r.byRound.map((x) => x ?? 0)]))
  return h`<h3>${groupTitle(language)}</h3>
${total === 0 ? '' : figure('Share of web tokens by topic', h`${legend([{ name: 'natural (before)', colour: 'var(--c8)' }, ...(after < 0 ? [] : [{ name: `in ${rounds[after]?.label ?? ''}`, colour: groupColour(language, view.request.spec.targetLanguage) }])])}${topicChart(view, language, rows, after)}`)}
${table<TopicRow>(
  [
    { head: 'Topic', cell: (r) => r.topic },
    { head: 'Pages labelled', numeric: true, cell: (r) => count(r.labelled) },
    { head: 'Left to train on', numeric: true, cell: (r) => count(r.docs) },
    { head: 'Natural share', numeric: true, cell: (r) => bar(r.natural / most, percent(r.natural)) },
    ...rounds.map((round, i) => ({ head: clip(round.label, 24), numeric: true, cell: (r: TopicRow) => (r.byRound[i] === null || r.byRound[i] === undefined ? '–' : bar(r.byRound[i] / most, percent(r.byRound[i]), r.natural / most)) })),
  ],
  rows,
)}
${note('Shares of this language’s web tokens, as planned for each round; the tick marks the natural share.')}`
}

const webShares = (round: Round, language: string): Map<string, number> => {
  const strata = round.plan?.strata.filter((s) => s.language === language && s.kind === 'web' && s.topic !== null) ?? []
  const total = sum(strata.map((s) => s.ratio))
  return new Map(total === 0 ? [] : strata.map((s) => [s.topic ?? '', s.ratio / total]))
}

const topicChart = (view: View, language: string, rows: readonly TopicRow[], after: number): Html =>
  chart(`topics-${language}`, `Share by topic: ${rows.map((r) => `${r.topic} ${percent(r.natural)} before, ${percent(r.byRound[after] ?? Number.NaN)} after`).join('; ')}`, 48 + rows.length * 32, {
    grid: { left: 270, right: 40, top: 4, bottom: 42 },
    xAxis: valueAxis('share of web tokens (%)', { axisLabel: { color: ink.soft, formatter: (v: number) => String(v) } }),
    yAxis: categoryAxis(rows.map((r) => clip(r.topic, 40)), { inverse: true, axisLine: { show: false } }),
    series: [
      { type: 'bar', barWidth: 9, barGap: '15%', itemStyle: { color: 'var(--c8)', opacity: 0.65 }, data: rows.map((r) => r.natural * 100) },
      ...(after < 0 ? [] : [{ type: 'bar', barWidth: 9, itemStyle: { color: groupColour(language, view.request.spec.targetLanguage) }, data: rows.map((r) => (r.byRound[after] ?? 0) * 100) }]),
    ],
  })

/** Who labelled what the classifiers learnt from, and what it cost; nothing where sources gave their own labels. */
const labelling = (view: View): Html => {
  const samples = ([['label-topics/quality', 'graded'], ['label-topics', 'labelled']] as const).flatMap(([key, done]) => {
    const counts = resultOf(view, key, labelTopics)?.counts
    return counts === undefined ? (view.lines.has(key) ? [absent(view, key, 'labels')] : []) : [h`<p>${count(counts.labelled)} of ${plural(counts.sampled, 'page')} were ${done} by <code>${String(requestOf(view, key)['model'])}</code>, for ${plural(counts.promptTokens + counts.completionTokens, 'token')} in ${plural(counts.requests, 'request')}${counts.quarantined === 0 ? '' : `; ${count(counts.quarantined)} got no label that can be used`}${counts.unasked === 0 ? '' : `; the budget did not reach ${count(counts.unasked)}`}.</p>`]
  })
  return h`${samples}`
}

const classifiers = (view: View): Html => {
  const keys = [...view.lines.keys()].filter((k) => k.startsWith('train-topic-classifier/'))
  if (keys.length === 0) return absent(view, 'train-topic-classifier/…', 'classifier')
  return h`${keys.map((key) => {
    const r = resultOf(view, key, trainTopicClassifier)
    if (r === null) return absent(view, key, 'classifier')
    const se = Math.sqrt((r.accuracy * (1 - r.accuracy)) / Math.max(1, r.numTest))
    const low = r.confidence === undefined ? null : sum(r.confidence.filter((c) => c.from + 1e-9 < view.request.spec.corpus.topics.minProbability).map((c) => c.docs)) / Math.max(1, r.numTest)
    return h`<p><strong>${groupTitle(key.slice(key.indexOf('/') + 1))}</strong> (${r.taxonomy}): right on ${percent(r.accuracy)} ± ${percent(se)} of ${plural(r.numTest, 'held-out page')}${r.macroF1 === undefined ? '' : h`, mean F1 of its topics ${fixed(r.macroF1, 2)}`}, trained on ${count(r.numTrain)}${r.encoder === undefined ? '' : h`; an encoder of ${plural(r.encoder.parameters, 'parameter')}, fine-tuned for ${plural(r.encoder.epochs, 'epoch')}`}.${r.othersRatio === undefined ? '' : h` Of them ${percent(r.othersRatio)} are taken for “Others”${low === null ? '' : h`; ${percent(low)} are below the least probability, which makes them “Others” too`}.`}</p>
${details('Precision and recall by topic', perTopic(r.perClass))}
${r.confusion === undefined ? '' : details('What is taken for what', confusion(r.perClass.map((c) => c.topic), r.confusion))}`
  })}`
}

const perTopic = (perClass: readonly Metrics['perClass'][number][]): Html =>
  table(
    [
      { head: 'Topic', cell: (c) => c.topic },
      { head: 'Precision', numeric: true, cell: (c) => fixed(c.precision, 2) },
      { head: 'Recall', numeric: true, cell: (c) => fixed(c.recall, 2) },
      { head: 'F1', numeric: true, cell: (c) => (c.f1 === undefined ? '–' : fixed(c.f1, 2)) },
      { head: 'Pages judged', numeric: true, cell: (c) => count(c.support) },
    ],
    perClass,
  )

/** A row is a topic, a column what its pages were taken for, by number; a cell is darker the larger its share of the row. */
const confusion = (topics: readonly string[], matrix: readonly (readonly number[])[]): Html => {
  const unknown = matrix.some((row) => (row[topics.length] ?? 0) > 0)
  const columns = unknown ? topics.length + 1 : topics.length
  const rows = topics.map((topic, i) => ({ topic, number: i, docs: matrix[i] ?? [] }))
  return h`${table<(typeof rows)[number]>(
    [
      { head: 'Topic', cell: (r) => `${r.number + 1} ${r.topic}` },
      ...Array.from({ length: columns }, (_, j) => ({ head: j === topics.length ? 'no word known' : String(j + 1), numeric: true, cell: (r: (typeof rows)[number]) => shaded(r.docs[j] ?? 0, sum(r.docs), j === r.number) })),
    ],
    rows,
  )}
${note('Held-out pages: a row is the topic that its pages have, a column what they were taken for; shade is the share of the row.')}`
}

const shaded = (docs: number, ofRow: number, isRight: boolean): Html | string =>
  docs === 0 ? '·' : h`<span style="display:block;padding:0 .3em;background:color-mix(in srgb, var(${isRight ? '--c2' : '--c4'}) ${Math.round((100 * docs) / Math.max(1, ofRow))}%, transparent)" title="${percent(docs / Math.max(1, ofRow))} of the row">${count(docs)}</span>`
