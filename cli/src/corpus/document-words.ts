import type { InspectedDocument } from '@cpt/activities/inspect/inspect-corpus'
import { plainText } from '../plain-text.ts'
import { quantity } from '../run/words.ts'

const previewChars = 800
const width = 14

/** A document and all that was decided about it, for a terminal; its whole text with `whole`. */
export const documentWords = (doc: InspectedDocument, whole: boolean): string => {
  const line = (title: string, words: string): string => `  ${title.padEnd(width)} ${words}`
  return [
    plainText(doc.id),
    line('from', `${plainText(doc.source)}, line ${doc.line}${doc.origin === '' ? '' : ` (${one(doc.origin)})`}; shard ${doc.place.shard}, row ${doc.place.row}`),
    line('is', `${plainText(doc.kind)}, language ${plainText(doc.language)}, licence ${one(doc.license)}${doc.label === null ? '' : `, labelled ${one(doc.label)}`}${doc.use === 'validate' ? ', for validation only' : ''}`),
    ...verdictWords(doc).map(([stage, words]) => line(stage, words)),
    ...(doc.quality === null ? [] : [line('quality', `score ${doc.quality.score} of 5, probability ${doc.quality.probability.toFixed(2)}`)]),
    ...(doc.topic === null ? [] : [line('topic', `${one(doc.topic)}${doc.topicProbability === null ? '' : `, probability ${doc.topicProbability.toFixed(2)}`}`)]),
    ...(doc.tokens === null ? [] : [line('tokens', doc.tokens.count === 0 ? 'none: dropped before' : `${doc.tokens.count} of ${doc.tokens.bytes} bytes`)]),
    ...scoreWords(doc).map((words) => line('perplexity', words)),
    ...doc.validationSets.map((set) => line('measured by', `the validation set ${plainText(set)}`)),
    ...drawnWords(doc).map((words, i) => line(i === 0 ? 'drawn' : '', words)),
    ...textWords(doc.text, whole),
  ].join('\n')
}

/** Each stage's verdict and why; after the first that dropped the document nobody judged it. */
const verdictWords = ({ verdicts, validationSets }: InspectedDocument): [stage: string, words: string][] => {
  const dropped = verdicts.findIndex((v) => !v.keep)
  return verdicts.map((v, i) => {
    if (dropped >= 0 && i > dropped) return [v.stage, '– not judged, dropped before']
    const cluster = v.cluster === undefined ? '' : `; one of ${v.cluster.size} near duplicates: ${some(v.cluster.ids)}`
    if (v.keep) return [v.stage, `✓ kept${cluster}`]
    const why = v.reason === 'held-out' && validationSets.length === 0 ? 'held out, as a near duplicate of what is measured or for validation only' : `${one(v.reason ?? '')}${(v.evidence ?? '') === '' ? '' : `: ${one(v.evidence ?? '')}`}`
    return [v.stage, `✗ ${why}${cluster}`]
  })
}

const some = (ids: readonly string[]): string => `${ids.slice(0, 5).map(one).join(', ')}${ids.length > 5 ? ', …' : ''}`

const scoreWords = ({ nll, scoredTokens, tokens }: InspectedDocument): string[] => {
  if (scoredTokens === null || tokens === null || tokens.count === 0) return []
  if (nll === null) return ['not scored']
  return [`${quantity(Math.exp(nll))} (${nll.toFixed(3)} nats a token, over ${scoredTokens} tokens)`]
}

const drawnWords = ({ drawn, tokens }: InspectedDocument): string[] => {
  if (drawn.length === 0) return tokens === null || tokens.count === 0 ? [] : ['by no plan so far']
  return drawn.map(({ plan, band, tokens: drawnTokens, pieces }) => {
    const [first] = pieces
    const epochs = new Set(pieces.map((p) => p.epoch)).size
    return `plan ${plan} (tokens ${quantity(band.fromTokens)} to ${quantity(band.toTokens)} of ${quantity(band.totalTokens)}): ${drawnTokens} tokens, from token ${first?.offset ?? 0} of the plan on${epochs > 1 ? `, ${epochs} times` : ''}`
  })
}

const textWords = (text: string, whole: boolean): string[] => {
  const chars = Array.from(text)
  const shown = whole ? text : chars.slice(0, previewChars).join('')
  return [`  ${'text'.padEnd(width)} ${chars.length} characters${whole || chars.length <= previewChars ? '' : `, the first ${previewChars} (--text shows all)`}`, ...shown.split('\n').map((l) => `  │ ${plainText(l)}`)]
}

/** On one line, and not without end. */
const one = (text: string): string => {
  const flat = plainText(text).replaceAll('\n', ' ')
  return flat.length > 200 ? `${flat.slice(0, 200)}…` : flat
}
