import { afterAll, beforeAll, expect, test } from 'vitest'
import { attributesOf, failureOf, lineOf, pageOf, parkOf, progressOf, refusal, resolve, resultOf, stageIs, startRun } from '../harness/runs.ts'
import { briefRun, smallRun, strictRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { claimsIn, jobsIn, nothingLeft } from '../harness/store.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

let system: System
beforeAll(async () => {
  system = await startSmallSystem()
})
afterAll(() => system.stop())

test('a failed stage parks and its page says what happened, which button to press and what to paste; a patch lets it go on', async () => {
  const run = await startRun(system, 'quarantine', strictRun())
  const park = await parkOf(run, 'ingest')
  expect(park).toMatchObject({ stage: 'ingest', park: 1, type: 'TooMuchQuarantined', actions: ['retry', 'abort'] })
  expect(park.message).toMatch(/^ingest: \d+ of \d+ lines \(\d+\.\d\d %\) could not be read, allowed are 0 %/)

  const page = await pageOf(run)
  expect(page).toContain('### Parked: ingest (TooMuchQuarantined)')
  expect(page).toContain('Open **More Actions** above, press **Send an Update**, choose `resolveFailure`')
  const json = JSON.parse(/```json\n([^]*?)\n```/.exec(page)?.[1] ?? '') as Parameters<typeof resolve>[1]
  expect(json).toEqual({ stage: 'ingest', park: 1, action: 'retry', reason: '' })
  expect(await attributesOf(run)).toMatchObject({ CptStatus: 'parked', CptStage: 'ingest' })

  const claimsBefore = (await claimsIn(system.storeDir)).filter((c) => c.key === 'ingest').length
  expect(await resolve(run, { ...json, patch: { request: { maxQuarantineRatio: 0.1 } }, reason: 'known dirt', by: 'ann' })).toBe('retry accepted for ingest, park 1')
  await stageIs(run, 'ingest', 'done')
  // the lines were read already; only the judgement on them changed
  expect((await claimsIn(system.storeDir)).filter((c) => c.key === 'ingest').length).toBe(claimsBefore)
  expect((await progressOf(run)).decisions).toMatchObject([{ stage: 'ingest', park: 1, action: 'retry', by: 'ann', reason: 'known dirt', patch: { request: { maxQuarantineRatio: 0.1 } } }])
  expect(await attributesOf(run)).toMatchObject({ CptStatus: 'running' })
  await run.cancel()
  await expect(run.result()).rejects.toThrow('cancelled')
})

test('a decision that does not fit is refused and says why; a repeated one acts once and says so', async () => {
  const run = await startRun(system, 'decisions', strictRun())
  await parkOf(run, 'ingest')
  const fits = { stage: 'ingest', park: 1, action: 'retry' as const }
  expect(await refusal(run, { ...fits, stage: 'filter' })).toBe('filter is not parked; parked: ingest (park 1)')
  expect(await refusal(run, { ...fits, park: 2 })).toBe('ingest is at park 1, not 2: look at the page again before you decide')
  expect(await refusal(run, { ...fits, action: 'skip' })).toBe('ingest: skip is not possible here; possible: retry, abort')
  expect(await refusal(run, { ...fits, action: 'again' })).toMatch(/^action: expected .*retry.*skip.*abort.*, got "again"$/)
  expect(await refusal(run, { ...fits, park: 0, who: 'ann' })).toMatch(/park: expected .*; who: expected no such key, got "ann"/)
  expect(await refusal(run, { ...fits, patch: { request: { maxQuarantineRatio: 7 } } })).toMatch(/^patch\.request\.maxQuarantineRatio: expected .*, got 7$/)
  expect(await refusal(run, { ...fits, patch: { request: { maxQarantine: 0.5 } } })).toMatch(/^patch\.request\.maxQarantine: expected .*, got 0\.5$/)
  expect(await refusal(run, { ...fits, action: 'abort', patch: { request: { maxQuarantineRatio: 0.5 } } })).toBe('a patch goes with action retry only')
  expect(await refusal(run, 'retry')).toMatch(/^\(input\): expected /)
  expect((await progressOf(run)).decisions).toEqual([])

  expect(await resolve(run, fits)).toBe('retry accepted for ingest, park 1')
  const second = await parkOf(run, 'ingest', 2)
  expect(second.type).toBe('TooMuchQuarantined')
  expect(await resolve(run, { ...fits, action: 'abort', by: 'late' })).toBe('already decided: retry by unknown')

  // two people press at once: one acts, the other is told
  const both = await Promise.all([resolve(run, { stage: 'ingest', park: 2, action: 'abort', by: 'ann', reason: 'wrong file' }), resolve(run, { stage: 'ingest', park: 2, action: 'abort', by: 'bob' })])
  expect(both.filter((answer) => answer.startsWith('abort accepted'))).toHaveLength(1)
  expect(both.filter((answer) => answer.startsWith('already decided: abort by '))).toHaveLength(1)
  expect(await failureOf(run)).toMatchObject({ type: 'Aborted', message: expect.stringMatching(/^ingest: aborted by (ann: wrong file|bob)$/) })
  expect((await run.describe()).status.name).toBe('FAILED')
  expect(await attributesOf(run)).toMatchObject({ CptStatus: 'failed' })
})

test('pause holds the next stage back until resume', async () => {
  const run = await startRun(system, 'pause', strictRun())
  await parkOf(run, 'ingest')
  expect(await run.executeUpdate<string, [unknown]>('pause', { args: [{ by: 'ann' }] })).toMatch(/^paused by ann/)
  expect(await pageOf(run)).toContain('paused: nothing new begins until the update `resume`')
  // what failed still needs a person, pause or not
  expect(await attributesOf(run)).toMatchObject({ CptStatus: 'parked' })
  await resolve(run, { stage: 'ingest', park: 1, action: 'retry', patch: { request: { maxQuarantineRatio: 0.1 } } })
  const ofIngest = async () => ((await run.fetchHistory()).events ?? []).filter((e) => e.activityTaskScheduledEventAttributes?.activityId?.startsWith('ingest') === true).length
  await until('the run to be paused and no longer parked', async () => (await progressOf(run)).status === 'paused')
  expect(await pageOf(run)).toContain('Paused; send the update `resume` to go on')
  expect(await attributesOf(run)).toMatchObject({ CptStatus: 'paused' })
  expect(await ofIngest()).toBe(1)
  expect(await run.executeUpdate<string, []>('resume')).toBe('resumed')
  await stageIs(run, 'ingest', 'done')
  expect(await ofIngest()).toBe(2)
  await run.cancel()
  await expect(run.result()).rejects.toThrow('cancelled')
})

test('a pause reaches the training under way: it leaves at its next checkpoint, and resume goes on from there', async () => {
  const steps = 60
  const run = await startRun(system, 'pause-training', briefRun({
    seed: 8,
    plan: [{ name: 'held', rounds: 1, tokens: steps * 4096, order: 'random', mixture: { languages: { zh: 0.4, en: 0.6 } } }],
    placement: { ...smallRun().placement, train: { threads: 1, batchTokens: 4096, checkpointEverySteps: 3 } },
  }))
  const train = 'held/round-1/train'
  await stageIs(run, train, 'running')
  const job = await until('the training to take steps', async () => (await jobsIn(system.storeDir)).find((j) => (j.beat?.step ?? 0) >= 1 && j.isRunning) ?? null)
  expect(await run.executeUpdate<string, [unknown]>('pause', { args: [{ by: 'ann' }] })).toBe('paused by ann: running jobs leave at their next commit, nothing new begins')
  expect(await run.executeUpdate<string, [unknown]>('pause', { args: [{ by: 'bob' }] })).toBe('paused already')
  const line = await until('the training to be paused', async () => [lineOf(await progressOf(run), train)].find((l) => l?.state === 'paused') ?? null)

  const end = (await jobsIn(system.storeDir)).find((j) => j.folder === job.folder)?.end
  expect(end).toMatchObject({ endClass: 'stopped', type: 'Paused' })
  const step = Number(/paused at step (\d+), /.exec(line.note)?.[1])
  expect(step % 3).toBe(0)
  expect(step).toBeLessThan(steps)
  expect(end?.progressTokens).toBe(step * 4096)
  expect(await pageOf(run)).toContain(`\`${train}\` train: paused at step ${step}`)
  expect(await progressOf(run)).toMatchObject({ status: 'paused', parked: [] })
  // its last word comes before its exit
  await until('the job to be gone', async () => (await jobsIn(system.storeDir)).every((j) => !j.isRunning))

  expect(await run.executeUpdate<string, [unknown]>('resume', { args: [{ by: 'ann' }] })).toBe('resumed by ann')
  expect(await run.executeUpdate<string, []>('resume')).toBe('not paused')
  expect((await resultOf(run)).tokens).toBe(steps * 4096)
  expect(await progressOf(run)).toMatchObject({ status: 'done', recoveries: 0, decisions: [] })
  expect(lineOf(await progressOf(run), train)?.note).toContain(`taken up again at step ${step}`)
  await nothingLeft(system.storeDir)
})

test('a cancelled run ends as Canceled and leaves no process', async () => {
  const run = await startRun(system, 'cancel', briefRun({ seed: 7, plan: [{ name: 'long', rounds: 1, tokens: 150 * 4096, order: 'random', mixture: { languages: { zh: 0.4, en: 0.6 } } }] }))
  const train = 'long/round-1/train'
  await stageIs(run, train, 'running')
  const job = await until('the training to take steps', async () => (await jobsIn(system.storeDir)).find((j) => (j.beat?.step ?? 0) >= 1 && j.isRunning) ?? null)
  await run.cancel()
  await expect(run.result()).rejects.toThrow('cancelled')
  expect((await run.describe()).status.name).toBe('CANCELLED')
  await nothingLeft(system.storeDir)
  const after = (await jobsIn(system.storeDir)).find((j) => j.folder === job.folder)
  // it was asked first, so it saved before it left
  expect(after?.end).toMatchObject({ endClass: 'stopped' })
  expect(after?.end?.progressTokens).toBeGreaterThan(0)
})

test('a training that diverges parks as LossNotFinite, and goes on with a lower learning rate as patch', async () => {
  const run = await startRun(system, 'diverge', briefRun({ training: { ...briefRun().training, schedule: 'constant', peakLr: 1, optimizer: { weightDecay: 1e30 }, guard: null } }))
  const train = 'only/round-1/train'
  const park = await parkOf(run, train)
  expect(park.type).toBe('LossNotFinite')
  expect(park.message).toMatch(/train.*step \d+/)
  expect(await pageOf(run)).toContain('retry with a lower schedule.peakLr as patch')
  await resolve(run, { stage: train, park: 1, action: 'retry', patch: { request: { schedule: { peakLr: 0.0005 }, optimizer: { weightDecay: 0.1 } } }, reason: 'diverged' })
  await resultOf(run)
  expect(lineOf(await progressOf(run), train)?.state).toBe('done')
})

test('a benchmark that cannot be read may be skipped; the rest of the run is not disturbed', async () => {
  const run = await startRun(system, 'bench', briefRun({ evaluation: { windowTokens: 128, maxTokensPerDoc: 128, benchmarks: [{ name: 'broken', path: 'small:broken-bench.jsonl', kind: 'mcq', shots: 0 }] } }))
  const park = await parkOf(run, 'base/broken')
  expect(park.actions).toContain('skip')
  await resolve(run, { stage: 'base/broken', park: 1, action: 'skip', reason: 'file is damaged' })
  await parkOf(run, 'final/broken')
  await resolve(run, { stage: 'final/broken', park: 1, action: 'skip' })
  expect((await resultOf(run)).model).not.toBeNull()
  const { stages } = await progressOf(run)
  expect(stages.filter((s) => s.state === 'skipped').map((s) => s.key)).toEqual(['base/broken', 'final/broken'])
})

test('a gate that does not pass asks a person: skip publishes the model, abort ends without one', async () => {
  const gate = { retentionToleranceNats: 0, minGainNats: 50, benchmarkMargin: 1, z: 1.64 }
  const publish = await startRun(system, 'gate-skip', briefRun({ gate }))
  const park = await parkOf(publish, 'gate')
  expect(park).toMatchObject({ type: 'GateFailed', actions: ['skip', 'abort'], cause: expect.stringMatching(/learned too little zh: \d+\.\d{3} nats\/token less than asked for/) as unknown })
  expect(park.message).toMatch(/gain in zh is -?\d\.\d{3} ± \d\.\d{3} nats\/token, asked for is 50\.000 \(fail\)/)
  expect(await pageOf(publish)).toContain(`Likely cause: ${park.cause}\nSuggested: ${park.suggest}.`)
  const discard = await startRun(system, 'gate-abort', briefRun({ gate }))
  await parkOf(discard, 'gate')
  await resolve(publish, { stage: 'gate', park: 1, action: 'skip' })
  await resolve(discard, { stage: 'gate', park: 1, action: 'abort' })
  expect(await resultOf(publish)).toMatchObject({ verdict: 'fail', model: expect.stringContaining('model') })
  expect(await resultOf(discard)).toMatchObject({ verdict: 'fail', model: null })
})
