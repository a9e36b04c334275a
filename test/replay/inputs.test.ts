import { beforeAll, expect, test } from 'vitest'
import { inputDifferences, recordedCalls } from './compare-inputs.ts'
import { readHistories, scenarioOf, type Recorded } from './recorded-histories.ts'
import { bundleWithInputs, replayHistories, silenceSdk } from './replay-histories.ts'

let recorded: Recorded[]
let code: string

beforeAll(async () => {
  silenceSdk()
  ;[recorded, code] = await Promise.all([readHistories(), bundleWithInputs()])
})

/** What replay says, and how the inputs differ, of each history. */
const compare = async (workflowCode: string, histories: Recorded[]): Promise<{ name: string; error: string | null; differences: string[] }[]> =>
  (await replayHistories(workflowCode, histories)).map(({ name, error, called }, i) => ({
    name,
    error,
    differences: inputDifferences(recordedCalls(histories[i]!), called),
  }))

const ofScenario = (name: string): Recorded[] => recorded.filter((r) => scenarioOf(r.name) === name)

interface Call {
  activityId?: string
  workflowId?: string
  input: { payloads: { data: string }[] }
}
interface CallEvent {
  activityTaskScheduledEventAttributes?: Call
  startChildWorkflowExecutionInitiatedEventAttributes?: Call
}
type Path = readonly (string | number)[]

const ownerOf = (histories: Recorded[], run: string): unknown => {
  const call = histories.flatMap(recordedCalls).find((c) => c.call === run)
  return (call?.args as [unknown, unknown, { spec: { owner: string } }])[2].spec.owner
}

/** Copies of histories in which one activity, or child workflow, has `value` at a path of its arguments; undefined takes the key away. */
const withInput = (histories: Recorded[], id: string, path: Path, value: unknown): Recorded[] => {
  const copies = structuredClone(histories)
  const call = copies.flatMap(({ history }) => (history as { events: CallEvent[] }).events).map((e) => e.activityTaskScheduledEventAttributes ?? e.startChildWorkflowExecutionInitiatedEventAttributes)
    .find((c) => c?.activityId === id || c?.workflowId === id)
  const [index, ...within] = path
  const payload = call!.input.payloads[index as number]!
  payload.data = Buffer.from(JSON.stringify(replaced(JSON.parse(Buffer.from(payload.data, 'base64').toString('utf8')), within, value))).toString('base64')
  return copies
}

const replaced = (document: unknown, [key, ...rest]: Path, value: unknown): unknown => {
  if (key === undefined) return value
  const copy = (Array.isArray(document) ? [...(document as unknown[])] : { ...(document as object) }) as Record<string | number, unknown>
  copy[key] = replaced(copy[key], rest, value)
  return copy
}

test('the workflow code of today asks with the inputs that every history has', async () => {
  expect(await compare(code, recorded)).toEqual(recorded.map(({ name }) => ({ name, error: null, differences: [] })))
})

test.each<[string, string, string, Path, unknown, string]>([
  ['a number', 'complete', 'stage-1/round-1/train', [0, 'request', 'tokenBudget'], 1, '$[0].request.tokenBudget: recorded 1, now 32768'],
  ['a key that the code does not give', 'complete', 'stage-1/round-2/train', [0, 'request', 'optimizer', 'beta-3'], 0.9, '$[0].request.optimizer["beta-3"]: recorded 0.9, now nothing'],
  ['a key that only the code gives', 'cancelled', 'hold-out', [0, 'request', 'seed'], undefined, '$[0].request.seed: recorded nothing, now 7'],
  ['one item of a list', 'aborted', 'ingest', [0, 'request', 'sources', 1, 'use'], 'validate', '$[0].request.sources[1].use: recorded "validate", now "train"'],
  ['a list in the place of an object', 'missing-file', 'resolve-input', [0, 'corpus'], [], '$[0].corpus: recorded [], now {"sources":[{"name":"gone","path":"samples:corpus/gone.jsonl","use":"train"}]}'],
  ['how often a person was asked', 'parked-and-retried', 'ingest#2', [0, 'decision'], 0, '$[0].decision: recorded 0, now 1'],
])('an input that differs is told by its activity and path, where replay alone sees none: %s', async (_what, scenario, activityId, path, value, difference) => {
  const results = await compare(code, withInput(ofScenario(scenario), activityId, path, value))
  expect(results.map((r) => r.error)).toEqual(results.map(() => null))
  expect(results.flatMap((r) => r.differences)).toEqual([`${activityId} ${difference}`])
})

test('so is an input of a child workflow, by the id of the child', async () => {
  const histories = ofScenario('transfer')
  const run = `${histories[0]!.workflowId}/run`
  const results = await compare(code, withInput(histories, run, [2, 'spec', 'owner'], 'somebody'))
  expect(results.map((r) => r.error)).toEqual(results.map(() => null))
  expect(results.flatMap((r) => r.differences)).toEqual([`${run} $[2].spec.owner: recorded "somebody", now ${JSON.stringify(ownerOf(histories, run))}`])
})

test.each([
  ['windows of another length', /windowTokens: spec\.evaluation\.windowTokens,(?=\s*maxTokensPerDoc)/g, 'windowTokens: 64,', ['base/perplexity $[0].request.validation.windowTokens: recorded 128, now 64']],
  ['the same seed in every round', /seed: spec\.seed \+ round\b/g, 'seed: spec.seed', ['stage-1/round-1/sample-mixture $[0].request.seed: recorded 43, now 42', 'stage-1/round-2/sample-mixture $[0].request.seed: recorded 44, now 42']],
])('workflow code that asks for something else is noticed, though it replays: %s', async (_what, from, to, differences) => {
  const mutant = code.replace(from, to)
  expect(mutant).not.toBe(code)
  const results = await compare(mutant, ofScenario('complete'))
  expect(results.map((r) => r.error)).toEqual(results.map(() => null))
  expect(results.flatMap((r) => r.differences)).toEqual(expect.arrayContaining(differences))
})
