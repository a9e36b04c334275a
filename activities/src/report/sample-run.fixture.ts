import type { ReportRequest } from '@cpt/contracts/activities'
import type { ArtifactRef, CommitRecord } from '@cpt/contracts/artifact'
import { CptRunSpec, type StageLine } from '@cpt/contracts/cpt-run'
import type { PerplexityChange, StratumLoss } from '@cpt/contracts/evaluate-perplexity'
import type { Stratum } from '@cpt/contracts/hold-out'
import type { Stage } from '@cpt/contracts/stage'
import { stages } from '@cpt/contracts/stages'
import { taxonomies } from '@cpt/contracts/topics'
import type { z } from 'zod'
import { sha256 } from '../identity.ts'
import type { CurvePoint, ReportSource } from './view.ts'

/** A whole run in memory, the size of the quickstart, for tests and for looking at the page. */
export interface SampleRun {
  request: ReportRequest
  source: { records: Map<string, CommitRecord | null>; curves: Map<string, CurvePoint[]>; sourceLines: Map<string, Map<string, { lines: number; quarantined: number }>>; decisions: ReportSource['decisions'][number][] }
}

const startMs = Date.UTC(2026, 0, 15, 9, 30)
const ref = (uri: string, bytes = 123_456): ArtifactRef => ({ uri, sha256: sha256(uri), bytes })
const wave = (i: number): number => Math.sin(i * 12.9898) * 0.5 + Math.sin(i * 78.233) * 0.5
const enTopics = taxonomies['syne-en/1']
const zhTopics = taxonomies['syne-zh/1']

export const sampleSpec = (): CptRunSpec =>
  CptRunSpec.parse({
    name: 'quickstart',
    description: 'The whole lifecycle on a sample corpus: a tiny English base learns Chinese.',
    owner: 'you',
    seed: 42,
    targetLanguage: 'zh',
    base: { model: 'samples:base', license: 'Apache-2.0' },
    corpus: {
      sources: [
        { name: 'en', path: 'samples:corpus/en.jsonl.zst', language: 'en' },
        { name: 'zh', path: 'samples:corpus/zh.jsonl.zst', language: 'zh' },
        { name: 'dirty', path: 'samples:corpus/dirty.jsonl' },
        { name: 'retention', path: 'samples:corpus/retention.jsonl.zst', use: 'validate', license: 'CC-BY-4.0' },
      ],
      maxQuarantineRatio: 0.05,
      filter: {},
      dedup: {},
      decontaminate: {},
      topics: { kinds: ['web'], minProbability: 0.3, taxonomies: { en: 'syne-en/1', zh: 'syne-zh/1' } },
      holdOut: {},
      scoring: { windowTokens: 128, maxTokensPerDoc: 512, minTokens: 20 },
    },
    synthesis: { numDocs: 1200, languages: ['en', 'zh'], families: ['arithmetic', 'units', 'programs'], wrongAnswerShare: 0 },
    plan: [
      { name: 'bilingual', rounds: 2, tokens: 983_040, order: 'perplexity', mixture: { languages: { zh: 0.5, en: 0.5 }, kinds: { zh: { web: 0.7, encyclopedia: 0.05, book: 0.2, qa: 0.05 } } }, reweight: true },
      { name: 'synthetic', rounds: 1, tokens: 245_760, order: 'random', mixture: { languages: { zh: 0.1, en: 0.7, synthetic: 0.2 } } },
    ],
    training: { sequenceTokens: 128, globalBatchTokens: 4096, schedule: 'warmup-stable-decay', peakLr: 1e-3, minLr: 1e-4, warmupTokens: 49_152, decayTokens: 122_880, optimizer: {}, optimizerBetweenRounds: 'keep', optimizerBetweenStages: 'keep', dtype: 'float32' },
    reweight: {},
    evaluation: { windowTokens: 128, maxTokensPerDoc: 512, benchmarks: ['gaokao-biology', 'gaokao-physics', 'gsm8k', 'humaneval'].map((name) => ({ name, path: `samples:bench/${name}.jsonl.zst`, kind: name === 'humaneval' ? 'solution' : name === 'gsm8k' ? 'generate' : 'mcq', shots: name === 'humaneval' ? 0 : 5 })) },
    gate: { retentionToleranceNats: 0.05, minGainNats: 0.05, benchmarkMargin: 0.05, z: 1.645 },
    placement: { data: {}, scoring: {}, train: {}, evaluate: {} },
  })

const strata: Stratum[] = [
  ...zhTopics.map((topic) => ({ language: 'zh', kind: 'web' as const, topic })),
  ...(['encyclopedia', 'book', 'qa'] as const).map((kind) => ({ language: 'zh', kind, topic: null })),
  ...enTopics.map((topic) => ({ language: 'en', kind: 'web' as const, topic })),
  ...(['encyclopedia', 'book', 'code', 'math'] as const).map((kind) => ({ language: 'en', kind, topic: null })),
]
const synthetic: Stratum[] = ['en', 'zh'].map((language) => ({ language, kind: 'synthetic', topic: null }))

const share = (s: Stratum, i: number): number => (s.topic === null ? 0.06 : 0.07) * (1 + 0.6 * wave(i + 1))
const ratiosFor = (round: number): { stratum: Stratum; ratio: number }[] => {
  const all = round === 2 ? [...strata, ...synthetic] : strata
  const language: Record<string, number> = round === 2 ? { zh: 0.1, en: 0.7, synthetic: 0.2 } : { zh: 0.5, en: 0.5 }
  const group = (s: Stratum): string => (s.kind === 'synthetic' ? 'synthetic' : s.language)
  const raw = all.map((s, i) => share(s, i) * (1 + round * 0.2 * wave(i * 3)))
  const total = (g: string): number => all.reduce((sum, s, i) => sum + (group(s) === g ? (raw[i] ?? 0) : 0), 0)
  return all.map((stratum, i) => ({ stratum, ratio: ((raw[i] ?? 0) / total(group(stratum))) * (language[group(stratum)] ?? 0) }))
}

const measured = (progress: number): StratumLoss[] =>
  [...strata.map((s) => ({ ...s, set: 'corpus' as const })), { language: 'en', kind: 'web' as const, topic: null, set: 'retention' as const }].map((s, i) => {
    const base = s.language === 'zh' ? 5.76 + 0.3 * wave(i) : 4.3 + 0.25 * wave(i)
    const gain = s.set === 'retention' ? 0.021 : s.language === 'zh' ? -0.41 - 0.08 * wave(i * 7) : -0.2 - 0.05 * wave(i * 5)
    const nllPerToken = base + gain * progress
    return { ...s, docs: 9 + (i % 7), tokens: 3000 + i * 40, bytes: s.language === 'zh' ? 8100 + i * 90 : 12_000 + i * 150, nllPerToken, nllPerByte: nllPerToken * (s.language === 'zh' ? 0.37 : 0.25) }
  })

/** A confusion in which every third page of a topic is taken for the next one, and a page for none. */
const judged = (topics: number) => ({
  macroF1: 0.76,
  othersRatio: 0.11,
  confusion: Array.from({ length: topics }, (_, i) => Array.from({ length: topics + 1 }, (_, j) => (i === j ? 13 : j === (i + 1) % topics ? 6 : j === topics && i === 0 ? 1 : 0))),
  confidence: Array.from({ length: 20 }, (_, i) => ({ from: i / 20, docs: i < 2 ? 3 : 11, right: i < 2 ? 1 : 9 })),
})

/** Adds a line and its commit record; returns the record's fingerprint. */
type Add = <S extends Stage>(key: string, stage: S, result: z.input<S['result']>, jobSeconds: number, more?: { line?: Partial<StageLine>; request?: unknown; beside?: boolean }) => string

/** The way of 5,199 documents of four sources to `left` that are trained on. */
const funnelOf = (left: number): z.input<typeof stages.countFunnel.result>['counts'] => {
  const line = (docs: number, ...taken: [number, number, number, number]) => {
    const after = taken.map((_, i) => docs - taken.slice(0, i + 1).reduce((a, b) => a + b, 0))
    const [filter = 0, dedup = 0, decontaminate = 0, heldOut = 0] = after
    return { docs, left: { filter, dedup, decontaminate, 'hold-out': heldOut }, tokens: heldOut * 575, bytes: heldOut * 1850 }
  }
  const dirty = line(300, 110, 80, 7, 0)
  const others = left - dirty.left['hold-out']
  return {
    docs: 5199,
    bySource: { en: { en: line(2402, 8, 6, 0, 2388 - Math.round(others / 2)) }, zh: { zh: line(2298, 6, 4, 0, 2288 - (others - Math.round(others / 2))) }, dirty: { en: dirty, zh: line(80, 4, 5, 1, 70) }, retention: { en: line(119, 0, 0, 0, 119) } },
    taken: { dirty: { filter: { 'too-short': 61, garbled: 12 }, dedup: { 'near-duplicate': 45 } }, en: { 'filter': { 'symbol-ratio': 8 } } },
  }
}

export const sampleRun = (): SampleRun => {
  const spec = sampleSpec()
  const lines: StageLine[] = []
  const records = new Map<string, CommitRecord | null>()
  const curves = new Map<string, CurvePoint[]>()
  let clock = 2.2
  const add: Add = (key, stage, result, jobSeconds, { line, request, beside } = {}) => {
    const fingerprint = sha256(key)
    const seconds = jobSeconds + 0.7
    lines.push({ key, stage: stage.name, state: 'done', fingerprint, startedAtMs: startMs + clock * 1000, seconds, jobSeconds, attempts: 1, note: '', ...line })
    if (beside !== true) clock += seconds
    records.set(fingerprint, { format: 'cpt-commit/1', fingerprint, stage: stage.name, version: stage.version, request: request ?? {}, files: [], result, parents: [], attempt: '0-1', wallSeconds: jobSeconds, committedAt: new Date(startMs + clock * 1000).toISOString() })
    return fingerprint
  }

  const verdicts = (docs: number, byReason: Record<string, number>, zhShare = 0.48) => {
    const kept = docs - Object.values(byReason).reduce((a, b) => a + b, 0)
    return { docs, kept, byReason, byLanguage: { en: kept - Math.round(kept * zhShare), zh: Math.round(kept * zhShare) } }
  }
  add('ingest', stages.ingest, { corpus: ref('store:corpus', 6_100_000), quarantine: ref('store:quarantine', 900), counts: { lines: 5230, kept: 5199, quarantined: 31, keptBytes: 9_800_000, byReason: { 'not-json': 14, 'not-utf8': 6, 'text-empty': 5, 'text-missing': 4, 'line-too-long': 2 }, bySource: { en: 2410, zh: 2390, dirty: 199, retention: 200 }, byLanguage: { en: 2750, zh: 2449 } } }, 3.1)
  const filtered = verdicts(5199, { 'too-short': 61, 'symbol-ratio': 22, 'duplicate-lines': 17, boilerplate: 16, garbled: 12 })
  add('filter', stages.filter, { verdicts: ref('store:v1'), counts: filtered }, 5.5)
  const unique = verdicts(filtered.kept, { 'exact-duplicate': 40, 'near-duplicate': 55 })
  add('dedup-signatures', stages.dedupSignatures, { signatures: ref('store:signatures', 2_700_000), counts: { docs: filtered.kept, withoutWords: 3 } }, 1.1)
  add('dedup', stages.dedup, { verdicts: ref('store:v2'), counts: { ...unique, clusters: 71 } }, 0.9)
  const decontaminated = verdicts(unique.kept, { 'contaminated:gsm8k': 6, 'contaminated:humaneval': 2 })
  add('decontaminate', stages.decontaminate, { verdicts: ref('store:v3'), counts: { ...decontaminated, byBenchmark: { gsm8k: 6, humaneval: 2 } } }, 3.9)
  add('find-personal-data', stages.findPersonalData, { personalData: ref('store:personal-data'), counts: { docs: 2100, withAny: 57, found: { 'email': 48, 'phone': 31, 'id-number': 2 }, byLanguage: { en: { email: 40, phone: 9 }, zh: { 'email': 8, 'phone': 22, 'id-number': 2 } } } }, 0.3)
  for (const [language, taxonomy, topics] of [['en', 'syne-en/1', enTopics], ['zh', 'syne-zh/1', zhTopics]] as const)
    add(`train-topic-classifier/${language}`, stages.trainTopicClassifier, { classifier: ref(`store:classifier-${language}`), taxonomy, numTrain: 1200, numTest: 212, accuracy: language === 'en' ? 0.783 : 0.741, perClass: topics.map((topic, i) => ({ topic, precision: 0.75 + 0.15 * wave(i), recall: 0.72 + 0.15 * wave(i + 5), support: 19 + (i % 4) })), ...judged(topics.length) }, 2.4)
  add('classify-topics', stages.classifyTopics, { topics: ref('store:topics'), counts: { docs: decontaminated.kept, classified: 3100, lowConfidence: 84, byTopic: Object.fromEntries([...zhTopics.map((t, i) => [`zh/${t}`, 130 + 3 * i] as const), ...enTopics.map((t, i) => [`en/${t}`, 170 + 3 * i] as const)]) } }, 2.1)
  const held = verdicts(decontaminated.kept, { 'held-out': 390 })
  add('hold-out', stages.holdOut, { verdicts: ref('store:v4'), validation: ref('store:validation', 820_000), counts: held, strata: strata.map((s) => ({ ...s, set: 'corpus' as const, docs: 9, expectedSeNats: 0.05 })) }, 1.2)
  add('tokenize', stages.tokenize, { tokens: ref('store:tokens', 10_400_000), index: ref('store:index'), counts: { docs: held.kept, tokens: 2_610_000, bytes: 8_420_000, byLanguage: { en: 1_350_000, zh: 1_260_000 } } }, 4)
  add('synthesize-qa', stages.synthesizeQa, { corpus: ref('store:synthetic'), counts: { docs: 1200, wrong: 0, byFamily: { arithmetic: 400, units: 400, programs: 400 }, byLanguage: { en: 600, zh: 600 } } }, 1)
  add('score-ppl', stages.scorePpl, { scores: ref('store:scores'), counts: { docs: held.kept, scored: 4540, nonFinite: 1, scoredTokens: 1_800_000, inputTokens: 1_804_540, paddedTokens: 1_840_000, flop: 6.1e12, sumNllNats: 1_800_000 * 5.02, pplHistogram: { '16': 21, '32': 190, '64': 880, '128': 1490, '256': 1370, '512': 480, '1024': 96, '4096': 13 } , nllHistogram: { '200': 211, '230': 880, '250': 2000, '270': 980, '320': 456, '415': 13 } }, extremes: { highest: [{ shard: 3, row: 15, nll: 8.31, tokens: 211 }], lowest: [{ shard: 0, row: 2, nll: 3.1, tokens: 512 }], nonFinite: [{ shard: 1, row: 7 }] } }, 24)
  add('count-strata', stages.countStrata, { strata: strata.map((s, i) => ({ ...s, docs: 120 + i * 3, tokens: Math.round(share(s, i) * 1_300_000), bytes: 300_000 })) }, 0.6, { line: { state: 'reused', jobSeconds: 0 } })
  add('count-funnel', stages.countFunnel, { counts: funnelOf(held.docs - 390) }, 0.3, { request: { steps: ['filter', 'dedup', 'decontaminate', 'hold-out'] } })
  add('base/perplexity', stages.evaluatePerplexity, { measurement: { perDoc: ref('store:base-per-doc'), strata: measured(0) } }, 6)

  let trained = 0
  for (const [round, [name, tokens]] of ([['bilingual/round-1', 491_520], ['bilingual/round-2', 491_520], ['synthetic/round-1', 245_760]] as const).entries()) {
    const ratios = ratiosFor(round)
    add(`${name}/sample-mixture`, stages.sampleMixture, { plan: ref(`store:plan-${round}`), numTokens: tokens + 1, numPieces: 3900, numDocs: 1500, maxOffShareTokens: 201, strata: ratios.map(({ stratum, ratio }, i) => ({ ...stratum, ratio, tokens: Math.round(ratio * tokens), docs: 30 + i, availableTokens: 90_000 - i * 500, borrowedTokens: i === 4 ? 2100 : 0, repeatedTokens: i === 13 && round === 1 ? 3300 : 0, meanNll: 4.6 + 0.4 * wave(i) })) }, 1.1)
    const steps = tokens / 4096
    const fingerprint = add(
      `${name}/train`,
      stages.train,
      { model: ref(`store:model-${round}`, 3_400_000), checkpoint: ref(`store:checkpoint-${round}`, 10_100_000), curve: ref(`store:curve-${round}`), tokens, steps, finalLoss: 4.41 - 0.12 * round, weightsSha256: sha256(`weights-${round}`), restarts: round === 1 ? [{ attempt: 2, step: 60, tokens: 245_760 }] : [], tokensPerSecond: 12_400, measurement: { perDoc: ref(`store:per-doc-${round}`), strata: measured([0.6, 0.9, 1][round] ?? 1) } },
      tokens / 12_400,
      { line: round === 1 ? { attempts: 2, note: 'the training process was killed; resumed from step 60' } : {}, request: { schedule: { startTokens: trained } } },
    )
    curves.set(fingerprint, Array.from({ length: steps }, (_, i) => {
      const at = trained + (i + 1) * 4096
      return { step: i + 1, tokens: (i + 1) * 4096, loss: 4.35 + 0.75 * Math.exp(-at / 240_000) - 0.1 * round + 0.07 * wave(at / 4096), lr: at < 49_152 ? (at / 49_152) * 1e-3 : at > 1_105_920 ? 1e-3 - ((at - 1_105_920) / 122_880) * 9e-4 : 1e-3 }
    }))
    trained += tokens
    add(`${name}/compare-perplexity`, stages.comparePerplexity, { strata: [], groups: [] }, 0.8)
  }

  const [before, after] = [measured(0), measured(1)]
  const change: PerplexityChange[] = before.map((b, i) => {
    const a = after[i] ?? b
    const [pplBefore, pplAfter] = [Math.exp(b.nllPerToken), Math.exp(a.nllPerToken)]
    return { language: b.language, kind: b.kind, topic: b.topic, set: b.set, docs: b.docs, nllBefore: b.nllPerToken, nllAfter: a.nllPerToken, deltaNll: a.nllPerToken - b.nllPerToken, seNll: 0.03, pplBefore, pplAfter, deltaPpl: pplAfter - pplBefore, sePpl: 3 }
  })
  const groups = [
    { group: 'zh', docs: 170, nllBefore: 5.758, nllAfter: 5.345, deltaNll: -0.413, seNll: 0.011, deltaNllPerByte: -0.1532 },
    { group: 'en', docs: 190, nllBefore: 4.312, nllAfter: 4.111, deltaNll: -0.201, seNll: 0.009, deltaNllPerByte: -0.0502 },
    { group: 'retention', docs: 200, nllBefore: 4.262, nllAfter: 4.283, deltaNll: 0.021, seNll: 0.006, deltaNllPerByte: 0.0052 },
  ]
  add('final/compare-perplexity', stages.comparePerplexity, { strata: change, groups }, 0.9)
  for (const [i, b] of spec.evaluation.benchmarks.entries()) {
    const metric = b.kind === 'mcq' ? ('acc' as const) : b.kind === 'generate' ? ('exact_match' as const) : ('nats_per_byte' as const)
    const score = (value: number) => ({ score: { task: b.name, metric, higherIsBetter: metric !== 'nats_per_byte', value, standardError: 0.031, items: 200, shots: b.shots, chance: metric === 'acc' ? 0.25 : null }, perItem: ref(`store:items-${b.name}`) })
    const [was, is] = metric === 'nats_per_byte' ? [1.402, 1.355] : metric === 'acc' ? [0.24 + 0.02 * i, 0.262 + 0.01 * i] : [0.005, 0.01]
    add(`base/${b.name}`, stages.evaluateBenchmark, score(was), 7, { beside: true })
    add(`final/${b.name}`, stages.evaluateBenchmark, score(is), 6)
    add(`compare/${b.name}`, stages.compareBenchmark, { items: 200, before: was, after: is, difference: is - was, standardError: 0.019 }, 0.5)
  }
  add('export-model', stages.exportModel, { model: ref('store:export', 3_500_000), path: 'store:export/model/', parameters: 846_432, files: 7, weightsSha256: sha256('weights-2') }, 3)

  const zh = Object.fromEntries(ratiosFor(0).filter((r) => r.stratum.language === 'zh' && r.stratum.kind === 'web').map((r) => [r.stratum.topic ?? '', r.ratio * 2]))
  const moved = Object.fromEntries(Object.entries(zh).map(([topic, ratio], i) => [topic, ratio * (1 + 0.05 * wave(i))]))
  const request: ReportRequest = {
    run: spec.name,
    workflowId: 'cpt/quickstart',
    runId: '0198c1d2-7e5a-7a3b-9c41-5d3f0c1b2a99',
    startedAtMs: startMs,
    spec,
    resolved: { sources: spec.corpus.sources.map((s) => ({ name: s.name, file: ref(s.path, 1_400_000) })), benchmarks: spec.evaluation.benchmarks.map((b) => ({ name: b.name, items: ref(b.path, 80_000) })), base: ref('samples:base/', 3_400_000), tokenizer: ref('samples:base/tokenizer.json', 290_000), parameters: 846_432 },
    lines,
    decisions: [{ key: 'bilingual/round-1/mixture', kind: 'mixture', uri: 'decisions/a/mixture.json' }, { key: 'bilingual/round-1/reweight', kind: 'reweight', uri: 'decisions/a/reweight.json' }, { key: 'gate', kind: 'gate', uri: 'decisions/a/gate.json' }],
    operator: [{ stage: 'bilingual/round-2/train', park: 1, action: 'retry', patch: null, reason: 'the machine was out of memory', by: 'you', atMs: startMs + 90_000 }],
    verdict: 'pass',
    modelPath: 'store/data/export/model',
  }
  const decisions = [
    { key: 'bilingual/round-1/mixture', kind: 'mixture', inputs: {}, output: { strata: [], topics: { zh }, notes: ['en: paper not asked for, left out'] } },
    {
      key: 'bilingual/round-1/reweight',
      kind: 'reweight',
      inputs: { ratios: { zh }, changes: change.filter((c) => c.kind === 'web'), settings: spec.reweight },
      output: { ratios: { zh: moved }, factors: { zh: Object.fromEntries(Object.keys(zh).map((t, i) => [t, 1 - 0.4 * Math.abs(wave(i))])) }, notes: ['zh: Others: no usable measurement, ratio kept'] },
    },
    {
      key: 'gate',
      kind: 'gate',
      inputs: {},
      output: {
        verdict: 'pass',
        checks: [
          { name: 'retention', verdict: 'pass', value: 0.021, standardError: 0.006, bound: 0.05, note: 'the rise of loss on retained English is shown to be within the tolerance' },
          { name: 'gain zh', verdict: 'pass', value: -0.413, standardError: 0.011, bound: -0.05, note: '' },
          { name: 'gsm8k', verdict: 'undecided', value: 0.005, standardError: 0.019, bound: -0.02, note: 'too few items to tell' },
        ],
      },
    },
  ]
  const sourceLines = new Map([[sha256('ingest'), new Map([['en', { lines: 2402, quarantined: 0 }], ['zh', { lines: 2298, quarantined: 0 }], ['dirty', { lines: 411, quarantined: 31 }], ['retention', { lines: 119, quarantined: 0 }]])]])
  return { request, source: { records, curves, sourceLines, decisions } }
}
