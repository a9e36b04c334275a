import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ApplicationFailure } from '@temporalio/common'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CptRunSpec } from '@cpt/contracts/cpt-run'
import { checkInput, type Problem } from '@cpt/contracts/parse-input'
import { ModelTransferInput } from '@cpt/contracts/model-transfer'
import type { SweepVerdict, TrialOutcome } from '@cpt/contracts/sweep'
import { localDiskStore } from '../artifact-store/local-disk.ts'
import { loadConfig } from '../config.ts'
import { resolveSweep } from '../resolve-sweep.ts'
import { resolveTransfer } from './resolve-transfer.ts'
import { commitVerdict } from './verdicts.ts'

const samples = fileURLToPath(new URL('../../../samples', import.meta.url))
let dir: string
let deps: Parameters<typeof resolveTransfer>[0]
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cpt-transfer-'))
  const roots = { samples, store: join(dir, 'store'), models: dir }
  deps = { config: { ...loadConfig({}), roots }, store: localDiskStore(roots) }
})
afterAll(() => rm(dir, { recursive: true }))

const losses = { added: { perToken: 4, perByte: 2 }, retained: { perToken: 4, perByte: 1 } }
const verdictOf = async (chosen: { almr: number; peakLr: number } | null, training: Partial<CptRunSpec['training']> = {}) => {
  const { sweep, run: swept } = await resolveSweep(deps)({ run: { corpus: { name: 'of-the-sweep' } } })
  const run = { ...swept, spec: { ...swept.spec, training: { ...swept.spec.training, ...training } } }
  const verdict: SweepVerdict = {
    format: 'cpt-sweep-verdict/1', chosen: chosen === null ? null : { ...chosen, ...losses }, ties: [], edges: [], cells: [], standardDeviation: { added: 0.01, retained: 0.01 }, base: losses, settings: sweep.choice, missing: [], words: [chosen === null ? 'Nothing is feasible' : 'Chosen'],
  }
  const trials: TrialOutcome[] = []
  return (await commitVerdict(deps)({ format: 'cpt-verdict-file/1', workflowId: `sweep/${chosen?.almr ?? 'none'}`, sweep, run, trials, verdict })).verdictRef
}
const problemsOf = async (input: ModelTransferInput): Promise<string[]> => {
  const refusal = await resolveTransfer(deps)(input).then(() => null, (e: unknown) => e)
  if (!(refusal instanceof ApplicationFailure)) throw new Error(`not refused: ${String(refusal)}`)
  expect(refusal.type).toBe('InvalidInput')
  return ((refusal.details ?? []) as Problem[]).map((p) => `${p.path}: ${p.expected}`)
}

test('the run on the target is that of the sweep at the chosen ALMR and the scaled learning rate, on the same corpus and scored by the proxy', async () => {
  const verdict = await verdictOf({ almr: 0.25, peakLr: 1e-3 })
  const { run, trials, evidence, chosen } = await resolveTransfer(deps)({ verdict })
  const proxy = await resolveSweep(deps)({})
  expect(chosen).toEqual({ almr: 0.25, peakLr: 1e-3 })
  expect(run.spec).toMatchObject({ base: { model: 'samples:target/' }, training: { peakLr: 5e-4 }, plan: [{ name: 'transfer', tokens: 4 * proxy.sweep.tokensPerTrial, mixture: { languages: { zh: 0.25, en: 0.75 } } }] })
  expect(run.spec.training.minLr / run.spec.training.peakLr).toBeCloseTo(proxy.run.spec.training.minLr / proxy.run.spec.training.peakLr, 12)
  expect(run.sources).toEqual(proxy.run.sources)
  expect(run.spec.corpus).toEqual(proxy.run.spec.corpus)
  expect(run.scorer).toEqual(proxy.run.base)
  expect(run.base.sha256).not.toBe(proxy.run.base.sha256)
  expect(run.parameters / proxy.run.parameters).toBeGreaterThan(3.5)
  expect(trials).toMatchObject({ tokensPerTrial: proxy.sweep.tokensPerTrial, parkedTrials: 'wait' })
  expect(evidence).toMatchObject({ sweepId: 'sweep/0.25', sameTokenizer: true })
})

test('a verdict that chose nothing is no evidence; an override with a reason takes its place', async () => {
  const verdict = await verdictOf(null)
  expect(await problemsOf({ verdict })).toEqual([expect.stringMatching(/^verdict: .*override/)])
  const bold = await resolveTransfer(deps)({ verdict, override: { almr: 0.4, peakLr: 2e-3, reason: 'asked for', by: 'ann' } })
  expect(bold).toMatchObject({ chosen: { almr: 0.4, peakLr: 2e-3 }, override: { by: 'ann' }, evidence: { sweepId: 'sweep/none' } })
})

test('a learning rate above the proxy’s has to be allowed', async () => {
  const verdict = await verdictOf({ almr: 0.25, peakLr: 1e-3 })
  expect(await problemsOf({ verdict, lrFactor: 1.5 })).toEqual([expect.stringMatching(/^lrFactor: at most 1/)])
  expect((await resolveTransfer(deps)({ verdict, lrFactor: 1.5, allowHigherLr: true })).run.spec.training.peakLr).toBeCloseTo(1.5e-3, 12)
})

test('what does not fit is named where a person gave it', async () => {
  const verdict = await verdictOf({ almr: 0.25, peakLr: 1e-3 })
  expect(await problemsOf({ verdict, phase: { tokens: 100 } })).toEqual([expect.stringMatching(/^phase\.tokens: /)])
  expect(await problemsOf({ verdict, confirmation: { tokens: 100 } })).toEqual([expect.stringMatching(/^confirmation\.tokens: /)])
  expect(await problemsOf({ verdict, target: { model: 'samples:nowhere/' } })).toEqual(expect.arrayContaining([expect.stringMatching(/^target\.model: /)]))
  expect(await problemsOf({ verdict, run: { training: { peakLr: 1e-3 } } })).toEqual([expect.stringMatching(/^run\.training\.peakLr: /)])
})

test('with another tokenizer the target scores the corpus itself, and losses are to be compared per byte', async () => {
  const other = join(dir, 'other')
  await cp(join(samples, 'base'), other, { recursive: true })
  await writeFile(join(other, 'tokenizer.json'), '{}')
  const { run, evidence } = await resolveTransfer(deps)({ verdict: await verdictOf({ almr: 0.25, peakLr: 1e-3 }), target: { model: 'models:other/' } })
  expect(run.scorer).toBeUndefined()
  expect(evidence?.sameTokenizer).toBe(false)
})

test('the target is guarded as its sweep was, as usual where that began before guards were, and as the input says', async () => {
  const guardOf = async (training: Parameters<typeof verdictOf>[1], input: ModelTransferInput = {}) => (await resolveTransfer(deps)({ verdict: await verdictOf({ almr: 0.25, peakLr: 1e-3 }, training), ...input })).run.spec.training.guard
  const guard = { windowSteps: 8, spikeZ: 8, minRise: 0.5, skipSteps: 4, maxAmendments: 1 }
  expect(await guardOf({ guard })).toEqual(guard)
  expect(await guardOf({ guard: undefined })).toMatchObject({ windowSteps: 32, maxAmendments: 3 })
  expect(await guardOf({ guard }, { run: { training: { guard: null } } })).toBeNull()
})

test('the target keeps its tokenizer: another one is refused at the door, and where the door is passed by', async () => {
  const tokenizer = 'samples:base/tokenizer.json'
  const refused = [{ target: { tokenizer } }, { run: { base: { tokenizer } } }]
  expect(refused.map((input) => checkInput(ModelTransferInput, input).problems?.map((p) => p.path))).toEqual([['target.tokenizer'], ['run.base']])
  const verdict = await verdictOf({ almr: 0.25, peakLr: 1e-3 })
  for (const input of refused) expect(await problemsOf({ verdict, ...input } as unknown as ModelTransferInput)).toEqual([expect.stringMatching(/^target\.tokenizer: /)])
})
