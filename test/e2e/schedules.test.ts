import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ScheduleDescription } from '@temporalio/client'
import { connect } from '@cpt/cli/connect'
import { applySchedule } from '@cpt/cli/schedule/apply'
import { checkSchedule } from '@cpt/cli/schedule/schedule-file'
import { parse } from 'yaml'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { cpt, type Said } from '../harness/cli.ts'
import { briefRun } from '../harness/small-run.ts'
import { smallSweep } from '../harness/small-sweep.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { nothingLeft } from '../harness/store.ts'
import { parkFirstTraining, trialOf, type Sweep } from '../harness/sweeps.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

let system: System
let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cpt-schedules-'))
  system = await startSmallSystem()
})
afterAll(() => system.stop().finally(() => rm(folder, { recursive: true, force: true })))

const { corpus, ...rest } = briefRun()
/** Prepares the small corpus; its data stages are reused from the second time on. */
const nightly = (over: object = {}, maxQuarantineRatio = 0.1) => ({
  id: 'nightly', workflow: 'corpusPreparation', calendars: [{ hour: 2, minute: 30 }], timeZone: 'Europe/Berlin',
  policies: { overlap: 'SKIP', catchupWindow: '1h', pauseOnFailure: false },
  input: { ...rest, name: 'nightly', corpus: { name: 'nightly', ...corpus, maxQuarantineRatio } }, ...over,
})
const schedule = (...args: string[]): Promise<Said> => cpt(system, 'schedule', ...args)
const apply = async (file: object): Promise<string> => {
  await writeFile(join(folder, 'nightly.yaml'), JSON.stringify(file))
  const { exitCode, stdout, stderr } = await schedule('apply', '--dir', folder)
  expect(stderr).toBe('')
  expect(exitCode).toBe(0)
  return stdout
}
const describe = (id = 'nightly'): Promise<ScheduleDescription> => system.client.schedule.getHandle(id).describe()
const startedBy = ({ info }: ScheduleDescription): string[] => info.recentActions.map((a) => a.action.workflow.workflowId)
const listed = async (): Promise<Record<string, Record<string, unknown>>> =>
  Object.fromEntries((JSON.parse((await schedule('list', '--dir', folder, '--json')).stdout) as { id: string }[]).map((row) => [row.id, row]))

test('an apply makes what the file says; again it changes nothing; a change is told and made', async () => {
  expect(await apply(nightly())).toBe('nightly  created\n')
  expect(await describe()).toMatchObject({
    action: { workflowType: 'corpusPreparation', workflowId: 'corpus/nightly', taskQueue: 'cpt', args: [nightly().input] },
    policies: { overlap: 'SKIP', catchupWindow: 3_600_000, pauseOnFailure: false },
    state: { paused: false, note: 'made from nightly.yaml' },
  })
  const [next] = (await describe()).info.nextActionTimes
  expect(next?.toLocaleTimeString('en-GB', { timeZone: 'Europe/Berlin' })).toBe('02:30:00')

  const before = (await describe()).raw.conflictToken
  expect(await apply(nightly())).toBe('nightly  unchanged\n')
  expect((await describe()).raw.conflictToken).toEqual(before)
  expect(await apply(nightly({ calendars: [{ hour: 3, minute: 30 }], policies: { ...nightly().policies, catchupWindow: '2h' } }))).toMatch(/^nightly {2}changed\n {2}calendars: .*\n {2}policies\.catchupWindowSeconds: 3600 → 7200\n$/)
  expect((await describe()).info.nextActionTimes[0]?.toLocaleTimeString('en-GB', { timeZone: 'Europe/Berlin' })).toBe('03:30:00')
})

test('an operator’s pause and its note outlive every apply, and so does the end of the pause', async () => {
  expect((await schedule('pause', 'nightly', '--reason', 'disk is being moved')).stdout).toMatch(/^nightly: paused/)
  expect((await schedule('pause', 'nightly', '--reason', 'again')).stdout).toMatch(/^nightly: paused already: disk is being moved \(paused by .+\)/)
  expect(await apply(nightly())).toMatch(/^nightly {2}changed; still paused: disk is being moved \(paused by .+\)\n/)
  expect((await describe()).state).toMatchObject({ paused: true, note: expect.stringContaining('disk is being moved') as unknown })
  expect(await apply(nightly())).toMatch(/^nightly {2}unchanged; still paused/)

  expect((await schedule('resume', 'nightly', '--reason', 'disk is there')).stdout).toMatch(/^nightly: resumed; next at \d{4}-/)
  await apply(nightly({ calendars: [{ hour: 4, minute: 30 }] }))
  expect((await describe()).state).toMatchObject({ paused: false, note: expect.stringContaining('disk is there') as unknown })
  expect((await schedule('resume', 'nightly')).stdout).toBe('nightly: not paused\n')
})

test('whoever pauses while an apply is on its way is not overridden, and the apply gets through', async () => {
  const real = await connect(system.config, system.server)
  const { client } = real
  let overtaken = 0
  const updateSchedule = async (request: object) => {
    if ((overtaken += 1) === 1) await client.schedule.getHandle('nightly').pause('pressed meanwhile')
    return await client.workflowService.updateSchedule(request)
  }
  const workflowService = new Proxy(client.workflowService, { get: (service, key) => (key === 'updateSchedule' ? updateSchedule : (Reflect.get(service, key, service) as unknown)) })
  const disturbed = new Proxy(client, { get: (whole, key) => (key === 'workflowService' ? workflowService : (Reflect.get(whole, key, whole) as unknown)) })
  const { schedule: wanted } = checkSchedule(nightly({ calendars: [{ hour: 5, minute: 30 }] }))
  expect(await applySchedule({ ...real, client: disturbed }, 'nightly.yaml', wanted!)).toMatchObject({ what: 'changed', held: 'pressed meanwhile' })
  expect(overtaken).toBe(2)
  expect((await describe()).state).toMatchObject({ paused: true, note: 'pressed meanwhile' })
  await client.schedule.getHandle('nightly').unpause('pressed again')
  await real.close()
  await apply(nightly({ calendars: [{ hour: 4, minute: 30 }] }))
})

test('the list tells what is in code, what differs from it and what is in no file', async () => {
  await writeFile(join(folder, 'never.yaml'), JSON.stringify(nightly({ id: 'never' })))
  await system.client.schedule.create({ scheduleId: 'by-hand', spec: { intervals: [{ every: '1 day' }] }, action: { type: 'startWorkflow', workflowType: 'cptRun', taskQueue: 'cpt', args: [{}] }, state: { paused: true } })
  const rows = await until('the new schedule to be listed', async () => [await listed()].find((l) => 'by-hand' in l && 'nightly' in l) ?? null)
  expect(rows).toMatchObject({
    'nightly': { code: 'nightly.yaml', state: 'active', drift: [] },
    'never': { code: 'never.yaml', state: 'not applied' },
    'by-hand': { code: 'not in code', state: 'paused' },
    'job-reaper': { code: 'made by workers' },
  })
  await writeFile(join(folder, 'nightly.yaml'), JSON.stringify(nightly()))
  expect((await listed())['nightly']).toMatchObject({ code: 'nightly.yaml, differs', drift: [expect.stringMatching(/^calendars: /)] })
  expect((await schedule('list', '--dir', folder)).stdout).toMatch(/nightly is not what nightly\.yaml says; an apply would change\n {2}calendars: /)
  await rm(join(folder, 'never.yaml'))
  await system.client.schedule.getHandle('by-hand').delete()
})

test('a file with a mistake stops an apply before anything is sent', async () => {
  await writeFile(join(folder, 'a-bad.yaml'), JSON.stringify(nightly({ id: 'bad', policies: { overlap: 'SKIP' }, input: { ...nightly().input, seeed: 1 } })))
  await writeFile(join(folder, 'nightly.yaml'), JSON.stringify(nightly({ timeZone: 'UTC' })))
  const { exitCode, stderr } = await schedule('apply', '--dir', folder)
  expect(exitCode).toBe(2)
  for (const path of ['policies.catchupWindow', 'policies.pauseOnFailure', 'input.seeed']) expect(stderr).toContain(`${path}: expected`)
  await rm(join(folder, 'a-bad.yaml'))
  expect(await apply(nightly({ calendars: [{ hour: 4, minute: 30 }] }))).toBe('nightly  unchanged\n')
})

test('a trigger starts exactly one run, and under SKIP none while one is under way', async () => {
  // parked, a run is under way for as long as the test needs it
  await apply(nightly({}, 0))
  const before = (await describe()).info.numActionsTaken
  const { stdout } = await schedule('trigger', 'nightly')
  const [, workflowId = ''] = /^started (corpus\/nightly-\S+)\n/.exec(stdout) ?? []
  expect(startedBy(await describe()).filter((id) => id === workflowId)).toHaveLength(1)
  const second = await schedule('trigger', 'nightly')
  expect(second).toMatchObject({ exitCode: 4, stderr: expect.stringContaining(`nothing was started: ${workflowId} is under way, and overlap is SKIP`) as unknown })
  expect((await describe()).info.numActionsTaken).toBe(before + 1)

  await cpt(system, 'cancel', workflowId)
  await system.client.workflow.getHandle(workflowId).result().catch(() => undefined)
  await until('the schedule to see the end', async () => (await describe()).info.runningActions.length === 0)
})

test('a back-fill starts exactly the runs that the policy says', async () => {
  await apply(nightly({}, 0))
  const taken = async (): Promise<number> => (await describe()).info.numActionsTaken
  const before = await taken()
  // 02:30 in Berlin, on three days
  const week = ['--from', '2026-01-05T00:00:00Z', '--to', '2026-01-08T00:00:00Z']
  const skipping = await schedule('backfill', 'nightly', ...week)
  expect(skipping.stdout).toMatch(/^nightly: 3 times within that span under overlap SKIP: 1 started, 2 left out\n {2}2026-01-05T01:30:00.000Z\n {2}2026-01-06T01:30:00.000Z\n {2}2026-01-07T01:30:00.000Z\n$/)
  expect(await taken()).toBe(before + 1)

  const all = await schedule('backfill', 'nightly', '--from', '2026-01-12', '--to', '2026-01-15', '--overlap', 'ALLOW_ALL')
  expect(all.stdout).toMatch(/^nightly: 3 times within that span under overlap ALLOW_ALL: 3 started, 0 left out\n/)
  // one of these days is under way from before, and is not begun a second time
  const overlapping = await schedule('backfill', 'nightly', '--from', '2026-01-14', '--to', '2026-01-16', '--overlap', 'ALLOW_ALL')
  expect(overlapping.stdout).toMatch(/^nightly: 2 times within that span under overlap ALLOW_ALL: 1 started, 0 left out, 1 under way already or to come\n/)
  const ids = new Set(startedBy(await describe()).slice(-5))
  expect(ids.size).toBe(5)
  for (const id of ids) expect((await system.client.workflow.getHandle(id).describe()).type).toBe('corpusPreparation')
  expect((await schedule('backfill', 'nightly', '--from', '2026-01-05T02:00:00Z', '--to', '2026-01-05T03:00:00Z')).stdout).toBe('nightly: no time of this schedule lies within that span; nothing was started\n')
  expect((await schedule('backfill', 'nightly', '--from', '2026-01-06', '--to', '2026-01-05')).exitCode).toBe(2)
  for (const id of ids) await system.client.workflow.getHandle(id).cancel()
  await Promise.all([...ids].map((id) => system.client.workflow.getHandle(id).result().catch(() => undefined)))
})

test('a night whose trial waits for a person ends by itself, and the next night begins', async () => {
  const sweep = smallSweep({ name: 'nightly', grid: { almr: [0.5], peakLrs: [1e-3], seeds: [91] }, parkedTrials: 'leave' })
  const slow = { ...sweep, tokensPerTrial: 40 * 4096, run: { ...sweep.run, placement: { train: { threads: 1, batchTokens: 4096, checkpointEverySteps: 1000 } } } }
  await apply(nightly({ id: 'sweeps', workflow: 'almrLrSweep', input: slow }))
  const trigger = async (): Promise<Sweep> => {
    const { stdout } = await schedule('trigger', 'sweeps')
    expect(stdout).toMatch(/^started sweep\/nightly-\S+\n/)
    return system.client.workflow.getHandle(/^started (\S+)/.exec(stdout)?.[1] ?? '')
  }
  const { sweep: night, index } = await parkFirstTraining(system, trigger)
  expect(await night.result()).toMatchObject({ state: 'needs-attention', verdict: { missing: [{ index, status: 'parked' }] } })
  expect((await trialOf(system, night, index).describe()).status.name).toBe('RUNNING')

  await until('the schedule to see the end', async () => (await describe('sweeps')).info.runningActions.length === 0)
  const next = await trigger()
  expect(next.workflowId).not.toBe(night.workflowId)
  expect(await next.result()).toMatchObject({ state: 'complete' })
  expect((await cpt(system, 'resolve', `${night.workflowId}/trial-${index}`, '--action', 'abort', '--reason', 'measured by the next night')).exitCode).toBe(0)
  await nothingLeft(system.storeDir)
})

test('the shipped night is a sweep of the newest corpus, and without one it says which it lacks', async () => {
  const file = new URL('../../infra/schedules/nightly-sweep.yaml', import.meta.url)
  const { input } = parse(await readFile(file, 'utf8')) as { input: object }
  expect((await schedule('apply')).stdout).toBe('nightly-sweep  created\n')
  expect((await describe('nightly-sweep')).action).toMatchObject({ workflowType: 'almrLrSweep', workflowId: 'sweep/nightly', args: [input] })
  const [, id = ''] = /^started (sweep\/nightly-\S+)\n/.exec((await schedule('trigger', 'nightly-sweep')).stdout) ?? []
  await expect(system.client.workflow.getHandle(id).result()).rejects.toMatchObject({ cause: { cause: { type: 'InvalidInput', message: expect.stringContaining('run.corpus.newest: expected the name of a committed corpus') as unknown } } })
})
