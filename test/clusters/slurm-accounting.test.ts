import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { jobRunnerCases } from '@cpt/activities/job-runner/job-runner.cases'
import { startSlurm, type Slurm } from '../../infra/slurm/start.mjs'
import { until } from '../harness/until.ts'
import { openSlurmBench } from './slurm-bench.ts'

let slurm: Slurm
beforeAll(async () => {
  slurm = await startSlurm({ accounting: true, settings: { MinJobAge: 2 } })
})
afterAll(() => slurm.stop())

test('of a job that the controller has forgotten the accounts tell how it ended', async () => {
  const bench = await openSlurmBench(slurm)
  try {
    const { job, request } = await bench.makeJob({ do: 'hang' })
    await bench.submitFromDeadWorker(job, request)
    await until('a beat', () => existsSync(join(job.path, 'beat.json')), 120)
    const number = (await bench.rows(job))[0]?.id
    // the look by which a listed job's submit time comes on record
    await bench.reach(job, 'running')
    await bench.kill(job)
    await until('Slurm to forget it', async () => (await bench.rows(job)).length === 0, 240)
    const { end } = await bench.reach(job, 'gone', bench.runnerWith({ settings: { vanishedAfterSeconds: 600 } }))
    expect(end).toMatchObject({ endClass: 'killed', signal: 'SIGKILL', scheduler: { job: number, state: 'FAILED', exitCode: '0:9' } })
  } finally {
    await bench.close()
  }
})

jobRunnerCases('Slurm, with accounting', () => openSlurmBench(slurm))
