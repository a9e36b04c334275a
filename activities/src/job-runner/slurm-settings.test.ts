import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Placement } from '@cpt/contracts/job'
import { describe, expect, test } from 'vitest'
import { JobNotStarted } from './job-runner.ts'
import { expandNodes } from './slurm-history.ts'
import { readSlurmSettings, SlurmSettings } from './slurm-settings.ts'
import { lastWords, meaningOf, phaseOf, waitingReason } from './slurm-states.ts'
import { optionsOf } from './slurm-submit.ts'

describe('CPT_SLURM', () => {
  test('is JSON or the path of a JSON file', async () => {
    const text = JSON.stringify({ pools: { default: { partition: 'gpu' } } })
    const folder = await mkdtemp(join(tmpdir(), 'cpt-slurm-settings-'))
    await writeFile(join(folder, 'slurm.json'), text)
    expect(readSlurmSettings(join(folder, 'slurm.json'))).toEqual(readSlurmSettings(text))
    expect(readSlurmSettings(text)).toMatchObject({ pools: { default: { partition: 'gpu', excludeNodes: [] } }, pollSeconds: 3, graceSeconds: 120 })
    await rm(folder, { recursive: true })
  })

  test.each([
    ['{"pools": {"gpu": {}}}', 'CPT_SLURM: pools: expected a pool named default'],
    ['{"pools": {"default": {"partition": "a b"}}}', 'CPT_SLURM: pools.default.partition: expected one word'],
    ['{"pools": {"default": {"partitoin": "a"}}}', 'CPT_SLURM: pools.default: Unrecognized key: "partitoin"'],
    ['{"pools": ', 'CPT_SLURM: not JSON'],
    ['/nowhere/slurm.json', 'CPT_SLURM: expected JSON or the path of a JSON file, got /nowhere/slurm.json'],
  ])('%s is refused with its place and reason', (text, message) => {
    expect(() => readSlurmSettings(text)).toThrow(message)
  })
})

describe('what the scheduler is told', () => {
  const settings = SlurmSettings.parse({ graceSeconds: 90, pools: { default: { partition: 'cpu', maxSeconds: 3600 }, big: { partition: 'gpu', account: 'team', qos: 'high', constraint: 'h100&ib', gpuType: 'h100', memoryMiB: 1000, excludeNodes: ['bad1'] } } })
  const told = (placement: object): string[] => optionsOf(settings, { placement: Placement.parse({ runner: 'slurm', ...placement }) })

  test('takes size from the placement and the cluster’s own names from the pool', () => {
    expect(told({ pool: 'big', nodes: 2, processesPerNode: 8, threads: 4, gpusPerNode: 8, excludeNodes: ['bad2', 'bad1'], timeLimitSeconds: 7201 })).toEqual(expect.arrayContaining([
      '--partition=gpu', '--account=team', '--qos=high', '--constraint=h100&ib', '--gpus-per-node=h100:8', '--mem=1000M', '--exclude=bad1,bad2', '--nodes=2', '--ntasks-per-node=1', '--cpus-per-task=32',
      '--time=121', '--signal=B:USR2@90', '--dependency=singleton', '--export=NIL', '--no-requeue', '--parsable',
    ]))
  })

  test('asks for no more time than the pool has, and leaves half of a short time for saving', () => {
    expect(told({ timeLimitSeconds: 86_400 })).toContain('--time=60')
    expect(told({ timeLimitSeconds: 5 })).toEqual(expect.arrayContaining(['--time=1', '--signal=B:USR2@30']))
  })

  test('a pool that the worker does not know is named, with those it knows', () => {
    expect(() => told({ pool: 'tpu' })).toThrow(JobNotStarted)
    expect(() => told({ pool: 'tpu' })).toThrow('placement.pool is tpu, but CPT_SLURM knows default, big')
  })
})

describe('what the scheduler says', () => {
  test.each([['PENDING', 'waiting'], ['CONFIGURING', 'waiting'], ['SUSPENDED', 'waiting'], ['RUNNING', 'running'], ['COMPLETING', 'running'], ['COMPLETED', 'over'], ['NODE_FAIL', 'over'], ['A_STATE_OF_LATER', 'running']])('%s means that a job is %s', (state, phase) => {
    expect(phaseOf(state)).toBe(phase)
  })

  test('a reason for waiting is shown in the scheduler’s word and in ours', () => {
    expect(waitingReason('PENDING', 'Resources')).toBe('Slurm: Resources (no free node of this size)')
    expect(waitingReason('PENDING', 'ReqNodeNotAvail, UnavailableNodes:n1')).toBe('Slurm: ReqNodeNotAvail, UnavailableNodes:n1 (nodes it needs are down, drained or reserved)')
    expect(waitingReason('PENDING', 'AssocGrpGRES')).toBe('Slurm: AssocGrpGRES')
  })

  const said = (state: string, exitCode: string, reason = 'None') => lastWords({ job: '7', state, reason, exitCode, nodes: ['n1'] })
  test.each([
    ['TIMEOUT', '0:0', { endClass: 'time-limit', exitCode: null, signal: null }],
    ['PREEMPTED', '0:15', { endClass: 'preempted', signal: 'SIGTERM' }],
    ['NODE_FAIL', '1:0', { endClass: 'node-lost', exitCode: null }],
    ['OUT_OF_MEMORY', '0:125', { endClass: 'killed' }],
    ['FAILED', '93:0', { endClass: 'do-not-restart', exitCode: 93, signal: null }],
    ['FAILED', '7:0', { endClass: 'failed', exitCode: 7 }],
    ['FAILED', '0:9', { endClass: 'killed', signal: 'SIGKILL', exitCode: null }],
    ['CANCELLED', '0:0', { endClass: 'killed', signal: 'SIGKILL' }],
    ['COMPLETED', '0:0', { endClass: 'vanished', exitCode: null }],
  ])('%s with %s and no end record is read as %j', (state, exitCode, words) => {
    expect(said(state, exitCode)).toMatchObject(words)
  })

  test('its words become the message', () => {
    expect(said('NODE_FAIL', '0:0', 'NodeDown').message).toBe('Slurm job 7 is NODE_FAIL (NodeDown) on n1, and it left no end record')
  })

  test.each([
    ['Batch job submission failed: Socket timed out on send/recv operation', 'unsure'],
    ['Batch job submission failed: Unable to contact slurm controller (connect failure)', 'unsure'],
    ['no answer', 'unsure'],
    ['Batch job submission failed: Invalid partition name specified', 'refused'],
    ['Batch job submission failed: Requested node configuration is not available', 'refused'],
    ['Batch job submission failed: Invalid account or account/partition combination specified', 'refused'],
    ['spawn sbatch ENOENT', 'refused'],
    ['QOSMaxSubmitJobPerUserLimit; Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user\'s size and/or time limits)', 'later'],
  ])('a submission that fails with "%s" is %s', (words, meaning) => {
    expect(meaningOf(words)).toBe(meaning)
  })

  test('lists of hosts are taken apart', () => {
    expect(expandNodes('n[1-3,7],gpu02,rack[08-10]-a')).toEqual(['n1', 'n2', 'n3', 'n7', 'gpu02', 'rack08-a', 'rack09-a', 'rack10-a'])
    expect(expandNodes('(null)')).toEqual([])
  })
})
