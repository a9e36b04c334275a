import type { InspectedDocument } from '@cpt/activities/inspect/inspect-corpus'
import { expect, test } from 'vitest'
import { documentWords } from './document-words.ts'

const doc = (change: Partial<InspectedDocument> = {}): InspectedDocument => ({
  id: 'news:a', text: 'First line.\nSecond line.', language: 'en', kind: 'web', label: null, source: 'news', origin: '', license: 'CC0-1.0', use: 'train', line: 1,
  place: { pool: 0, shard: 2, row: 15 }, verdicts: [], topic: null, topicProbability: null, quality: null, tokens: null, nll: null, scoredTokens: null, validationSets: [], drawn: [], ...change,
})
const verdict = (stage: string, reason: string | null = null, evidence: string | null = null) => ({ stage, keep: reason === null, reason, evidence })

test('a document that a stage dropped says why, and that nobody judged it afterwards', () => {
  const words = documentWords(doc({ verdicts: [verdict('filter'), { ...verdict('dedup', 'near-duplicate', 'news:b'), cluster: { number: 4, size: 2, ids: ['news:b', 'news:a'] } }, verdict('decontaminate')] }), false)
  expect(words).toContain('  filter         ✓ kept\n  dedup          ✗ near-duplicate: news:b; one of 2 near duplicates: news:b, news:a\n  decontaminate  – not judged, dropped before\n')
})

test('a document that is trained on has its perplexity, and what each plan drew of it', () => {
  const pieces = [{ offset: 960, start: 0, length: 40, epoch: 0 }, { offset: 4000, start: 0, length: 40, epoch: 1 }]
  const words = documentWords(doc({ tokens: { offset: 0, count: 40, bytes: 140 }, nll: Math.log(250), scoredTokens: 39, drawn: [{ plan: 2, band: { fromTokens: 0, toTokens: 1_000_000, totalTokens: 2_000_000 }, tokens: 80, pieces }] }), false)
  expect(words).toContain('perplexity     250 (5.521 nats a token, over 39 tokens)')
  expect(words).toContain('drawn          plan 2 (tokens 0 to 1.00M of 2.00M): 80 tokens, from token 960 of the plan on, 2 times')
  expect(documentWords(doc({ tokens: { offset: 0, count: 40, bytes: 140 }, nll: null, scoredTokens: 0 }), false)).toContain('perplexity     not scored\n  drawn          by no plan so far')
})

test('a held-out document says what it measures, or why it had to leave', () => {
  expect(documentWords(doc({ verdicts: [verdict('hold-out', 'held-out')], validationSets: ['corpus'] }), false)).toMatch(/✗ held-out\n {2}measured by {4}the validation set corpus/)
  expect(documentWords(doc({ verdicts: [verdict('hold-out', 'held-out')] }), false)).toContain('held out, as a near duplicate of what is measured')
})

test('a long text is cut by characters, and whole where it is asked for', () => {
  const text = '😀'.repeat(1000)
  expect(documentWords(doc({ text }), false)).toContain('text           1000 characters, the first 800 (--text shows all)')
  expect(documentWords(doc({ text }), false).match(/😀/gu)).toHaveLength(800)
  expect(documentWords(doc({ text }), true).match(/😀/gu)).toHaveLength(1000)
})

test('what a document says repaints no terminal', () => {
  const evil = '\u001b[2J\u001b]0;owned\u0007\u202Etxt'
  const words = documentWords(doc({ id: `x${evil}`, text: evil, origin: evil, license: evil, topic: evil, topicProbability: 0.5, source: evil, verdicts: [verdict('filter', evil, evil)] }), true)
  expect(words).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e]/)
})
