import { execFile } from 'node:child_process'
import { copyFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { InspectedDocument } from '@cpt/activities/inspect/inspect-corpus'
import type { CptRunInput } from '@cpt/contracts/cpt-run'
import { labelTopics } from '@cpt/contracts/label-topics'
import { scoreQuality } from '@cpt/contracts/score-quality'
import { trainTopicClassifier } from '@cpt/contracts/topics'
import { startChatEndpoint, type ChatEndpoint, type Question } from '../harness/chat-endpoint.ts'
import { cpt } from '../harness/cli.ts'
import { failureOf, lineOf, parkOf, progressOf, resultOf, startRun, type RunHandle } from '../harness/runs.ts'
import { briefRun, makeSmallCorpus } from '../harness/small-run.ts'
import { commitsOf, nothingLeft } from '../harness/store.ts'
import { startSystem, type System } from '../harness/system.ts'

const execute = promisify(execFile)
const model = 'labeller-1'
/** What the endpoint takes for poor text. */
const poor = ['Law and Policy', 'Security and International Relations']

let small: Awaited<ReturnType<typeof makeSmallCorpus>>
let endpoint: ChatEndpoint
let system: System
beforeAll(async () => {
  small = await makeSmallCorpus()
  endpoint = await startChatEndpoint(await labeller(join(small.dir, 'pages.jsonl')))
  system = await startSystem({ roots: { small: small.dir }, settings: () => ({ CPT_LABEL_URL: endpoint.url, CPT_LABEL_KEY: endpoint.key, CPT_LABEL_MODEL: model }) })
})
afterAll(() => system.stop().finally(() => endpoint.close()).finally(() => small.remove()))

const letters = (text: string): string => text.replace(/[^\p{L}\p{N}]/gu, '').toLowerCase()
const beginning = (text: string): string => letters(text).slice(0, 60)

/** Knows the topic of every page by how it begins, and grades by topic. */
const labeller = async (file: string): Promise<(question: Question) => string> => {
  const lines = (await readFile(file, 'utf8')).split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as { text: string; topic: string | null })
  const topics = new Map(lines.map(({ text, topic }) => [beginning(text), letters(topic ?? 'Others')]))
  const isPoor = new Set(poor.map(letters))
  return ({ document, labels }) => {
    const topic = topics.get(beginning(document))
    if (topic === undefined) throw new Error(`asked about a document that is in no source: ${document.slice(0, 80)}`)
    return labels.includes('5') ? (isPoor.has(topic) ? '1' : '4') : labels.find((label) => letters(label) === topic) ?? 'Others'
  }
}

const { corpus: shared, ...brief } = briefRun()
/** Enough training that the gate sees a gain. */
const rest = { ...brief, plan: brief.plan!.map((stage) => ({ ...stage, tokens: 3 * stage.tokens, mixture: { languages: { zh: 0.8, en: 0.2 } } })) }
const others = shared!.sources!.filter((s) => ['zh', 'replay', 'retention'].includes(s.name))
/** English pages without a label of their own. */
const unlabelled = { sources: [...others, { name: 'pages', path: 'small:pages.jsonl', fields: { topic: 'nothing-of-that-name' } }] }

const committed = async (run: RunHandle, key: string) => {
  const fingerprint = lineOf(await progressOf(run), key)?.fingerprint
  return (await commitsOf(system.storeDir)).find((commit) => commit.fingerprint === fingerprint)?.result
}
const inspected = async (run: RunHandle, ...flags: string[]): Promise<InspectedDocument[]> => {
  const said = await cpt(system, 'corpus', 'inspect', run.workflowId, ...flags, '--json')
  expect(said.stderr).toBe('')
  return (JSON.parse(said.stdout) as { documents: InspectedDocument[] }).documents
}
const textOf = (html: string): string => html.replace(/<style>[^]*?<\/style>|<script>[^]*?<\/script>/g, '').replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' ')
/** Everything under a folder, in one string. */
const filesUnder = async (folder: string): Promise<string> =>
  (await Promise.all((await readdir(folder, { recursive: true, withFileTypes: true })).filter((f) => f.isFile()).map((f) => readFile(join(f.parentPath, f.name), 'latin1')))).join('\n')

test('pages that nobody labelled are graded and labelled by the endpoint, dropped by their grade, and sorted by what it said', async () => {
  const labelled: CptRunInput['corpus'] = { ...shared, ...unlabelled, topics: { label: { languages: ['en'] } }, quality: { languages: ['en'], label: {} } }
  const run = await startRun(system, 'labelled', { ...rest, corpus: labelled })
  const { report } = await resultOf(run)
  const progress = await progressOf(run)

  // every page was asked about once for its grade, and once for its topic where the grade left it
  const graded = labelTopics.result.parse(await committed(run, 'label-topics/quality')).counts
  const sorted = labelTopics.result.parse(await committed(run, 'label-topics')).counts
  expect([graded.labelled, graded.quarantined, graded.unasked]).toEqual([graded.sampled, 0, 0])
  expect([sorted.labelled, sorted.quarantined, sorted.unasked]).toEqual([sorted.sampled, 0, 0])
  expect(endpoint.asked.filter((q) => q.labels.includes('5'))).toHaveLength(graded.sampled)
  expect(endpoint.asked.filter((q) => q.labels.includes('Others'))).toHaveLength(sorted.sampled)
  expect(new Set(endpoint.asked.map((q) => q.model))).toEqual(new Set([model]))
  expect(lineOf(progress, 'label-topics')?.note).toBe(`${sorted.labelled} of ${sorted.sampled} documents labelled, ${105 * sorted.sampled} tokens`)

  // the classifiers learnt from these labels and from nothing else
  const scorer = trainTopicClassifier.result.parse(await committed(run, 'train-topic-classifier/quality-en'))
  const classifier = trainTopicClassifier.result.parse(await committed(run, 'train-topic-classifier/en'))
  expect([scorer.numTrain + scorer.numTest, scorer.taxonomy]).toEqual([graded.labelled, 'quality/1'])
  expect([classifier.numTrain + classifier.numTest, classifier.taxonomy]).toEqual([sorted.labelled, 'syne-en/1'])

  const dropped = await inspected(run, '--dropped-by', 'score-quality/quality', '--sample', '100')
  const { counts } = scoreQuality.result.parse(await committed(run, 'score-quality'))
  expect(dropped).toHaveLength(counts.byReason['quality'] ?? 0)
  expect(counts.docs - counts.kept).toBe(dropped.length)
  expect(sorted.sampled).toBe(graded.sampled - dropped.length)
  expect(dropped.length).toBeGreaterThan(20)
  for (const doc of dropped) {
    expect([doc.language, doc.kind, doc.tokens?.count]).toEqual(['en', 'web', 0])
    expect(doc.quality?.score).toBe(1)
    expect(doc.verdicts.find((v) => v.stage === 'score-quality')).toMatchObject({ keep: false, evidence: expect.stringMatching(/^score 1 \(0\.\d\d\)$|^score 1 \(1\.00\)$/) as unknown })
  }
  const told = await cpt(system, 'corpus', 'inspect', run.workflowId, dropped[0]!.id)
  expect(told.stdout).toMatch(/score-quality {2}✗ quality: score 1 \(\d\.\d\d\)\n {2}hold-out {7}– not judged, dropped before/)
  const kept = (await inspected(run, '--kept', '--language', 'en', '--sample', '100')).filter((doc) => doc.kind === 'web')
  expect(new Set(kept.map((doc) => doc.quality?.score))).toEqual(new Set([4]))
  expect((await cpt(system, 'corpus', 'inspect', run.workflowId, kept[0]!.id)).stdout).toMatch(/quality {8}score 4 of 5, probability \d\.\d\d\n {2}topic {10}\w/)

  const page = textOf(await readFile(report, 'utf8'))
  expect(page).toContain(`score-quality: quality`)
  expect(page).toContain(`${sorted.labelled} of ${sorted.sampled} pages were labelled by ${model}`)
  expect(page).toContain(`${graded.labelled} of ${graded.sampled} pages were graded by ${model}`)
  for (const title of ['Data funnel', 'Topics before and after', 'How good the classifiers are', 'What is taken for what']) expect(page).toContain(title)
  expect(page).toContain(`trained on ${classifier.numTrain}.`)

  // the key stays with the worker and its jobs' environment
  expect(`${await filesUnder(system.stateDir)}${await filesUnder(small.dir)}`).not.toContain(endpoint.key)
  await nothingLeft(system.storeDir)
})

test('an encoder that is given by path is fine-tuned on the labels that the sources gave, and sorts in place of fastText', async () => {
  await execute(system.config.python, [fileURLToPath(new URL('../harness/small_encoder.py', import.meta.url)), small.dir], { cwd: join(system.config.home, 'ml'), env: system.config.jobEnv })
  const sources = [...others, { name: 'pages', path: 'small:pages.jsonl' }]
  const classifier = { engine: 'encoder', model: 'small:encoder', maxTokens: 64, epochs: 12, learningRate: 0.003, batchDocs: 16, languages: { zh: { engine: 'fasttext' } } } as const
  const run = await startRun(system, 'encoder', { ...rest, corpus: { ...shared, sources, topics: { classifier, minProbability: 0 } } })
  const { report } = await resultOf(run)

  const trained = trainTopicClassifier.result.parse(await committed(run, 'train-topic-classifier/en'))
  expect(trained.classifier.uri).toMatch(/\/classifier\/$/)
  expect(trained.encoder?.epochs).toBe(12)
  expect(trained.numTrain + trained.numTest).toBe(162)
  expect(trainTopicClassifier.result.parse(await committed(run, 'train-topic-classifier/zh')).encoder).toBeUndefined()
  const sorted = (await inspected(run, '--kept', '--language', 'en', '--sample', '300')).filter((doc) => doc.kind === 'web' && doc.source === 'pages')
  expect(sorted.length).toBeGreaterThan(100)
  // most of them were trained on; chance is about a sixth
  expect(sorted.filter((doc) => letters(doc.topic ?? '') === letters(doc.label ?? '')).length / sorted.length).toBeGreaterThan(0.5)
  expect(textOf(await readFile(report, 'utf8'))).toMatch(/trained on \d+; an encoder of [\d ,\u202f\u2009]+ parameters, fine-tuned for 12 epochs\./)

  const refusedAt = async (of: NonNullable<NonNullable<CptRunInput['corpus']>['topics']>['classifier']): Promise<string[]> =>
    (await failureOf(await startRun(system, 'refused', { ...rest, corpus: { ...shared, topics: { classifier: of } } }))).problems.map((p) => p.path)
  expect(await refusedAt({ engine: 'encoder' })).toEqual(['corpus.topics.classifier.model'])
  expect(await refusedAt({ engine: 'encoder', model: 'small:nothing' })).toEqual(['corpus.topics.classifier.model'])
  expect(await refusedAt({ engine: 'encoder', model: 'small:encoder', languages: { zh: { engine: 'fasttext', epochs: 3 } } })).toEqual(['corpus.topics.classifier.languages.zh.epochs'])
  await nothingLeft(system.storeDir)
})

test('a checkpoint whose weights are a pickle parks its training with the reason, and opens nothing', async () => {
  await mkdir(join(small.dir, 'pickled'))
  for (const name of ['config.json', 'tokenizer.json']) await copyFile(join(small.dir, 'encoder', name), join(small.dir, 'pickled', name))
  await writeFile(join(small.dir, 'pickled', 'pytorch_model.bin'), "cos\nsystem\n(S'touch opened'\ntR.")
  const sources = [...others, { name: 'pages', path: 'small:pages.jsonl' }]
  const run = await startRun(system, 'pickled', { ...rest, corpus: { ...shared, sources, topics: { classifier: { engine: 'encoder', model: 'small:pickled', languages: { zh: { engine: 'fasttext' } } } } } })
  const park = await parkOf(run, 'train-topic-classifier/en')
  expect(park.message).toContain('encoder pickled: there is no model.safetensors; pytorch_model.bin is a format that can hold code and is not opened')
  await run.cancel()
  await run.result().catch(() => undefined)
  await nothingLeft(system.storeDir)
})
