import { afterAll, beforeAll } from 'vitest'
import { jobRunnerCases } from '@cpt/activities/job-runner/job-runner.cases'
import { startSlurm, type Slurm } from '../../infra/slurm/start.mjs'
import { openSlurmBench } from './slurm-bench.ts'

let slurm: Slurm
beforeAll(async () => {
  slurm = await startSlurm()
})
afterAll(() => slurm.stop())

jobRunnerCases('Slurm, without accounting', () => openSlurmBench(slurm))
