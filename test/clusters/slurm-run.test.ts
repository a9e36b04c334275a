import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CptRunInput } from '@cpt/contracts/cpt-run'
import { startSlurm, type Slurm } from '../../infra/slurm/start.mjs'
import { pageOf, progressOf, resultOf, startRun } from '../harness/runs.ts'
import { smallRun } from '../harness/small-run.ts'
import { startSmallSystem } from '../harness/small-system.ts'
import { claimsIn, jobsIn, nothingLeft } from '../harness/store.ts'
import type { System } from '../harness/system.ts'
import { until } from '../harness/until.ts'

let slurm: Slurm
let system: System
beforeAll(async () => {
  slurm = await startSlurm({ settings: { MinJobAge: 3600 } })
  system = await startSmallSystem({
    settings: () => ({ CPT_SLURM: JSON.stringify({ conf: slurm.conf, cluster: slurm.cluster, pollSeconds: 0.5, visibleWithinSeconds: 1, graceSeconds: 30, pools: { default: { partition: 'main' } } }) }),
  })
})
afterAll(async () => {
  // a system that could not start must not leave a cluster behind
  try {
    await system.stop()
  } finally {
    await slurm.stop()
  }
})

const trainKey = 'only/round-1/train'
const slurmRun = (): CptRunInput =>
  smallRun({
    synthesis: { numDocs: 0 },
    plan: [{ name: 'only', rounds: 1, tokens: 24 * 4096, order: 'random', mixture: { languages: { zh: 0.4, en: 0.6 } } }],
    evaluation: { windowTokens: 128, maxTokensPerDoc: 128, benchmarks: [] },
    placement: { ...smallRun().placement, train: { runner: 'slurm', nodes: 2, threads: 1, batchTokens: 4096, checkpointEverySteps: 4 } },
  })

test('a run trains on two nodes of Slurm: it shows why a job waits, takes up a killed trainer where it saved, and ends with a model', async () => {
  await slurm.mustRun('scontrol', ['update', 'NodeName=n1,n2,n3', 'State=DRAIN', 'Reason=maintenance'])
  const run = await startRun(system, 'on-slurm', slurmRun())
  const waiting = await until('the reason for waiting', async () => {
    const progress = await progressOf(run).catch(() => null)
    if (progress?.parked[0] !== undefined) throw new Error(`parked: ${progress.parked[0].message}`)
    return progress?.live?.phase.startsWith('waiting: Slurm') === true ? progress.live.phase : null
  }, 400)
  expect(waiting).toContain('nodes it needs are down, drained or reserved')
  expect(await pageOf(run)).toContain('waiting: Slurm')
  await slurm.mustRun('scontrol', ['update', 'NodeName=n1,n2,n3', 'State=RESUME'])

  const claim = await until('the training to be claimed', async () => (await claimsIn(system.storeDir)).find((c) => c.key === trainKey) ?? null)
  expect(claim.runner).toBe('slurm')
  const trainer = await until('a step after a checkpoint', async () => {
    const job = (await jobsIn(system.storeDir)).find((j) => j.fingerprint === claim.fingerprint && j.attempt === 1)
    return job?.started != null && (job.beat?.step ?? 0) > 5 ? job.started.pid : null
  }, 300)
  process.kill(trainer, 'SIGKILL')

  const { model } = await resultOf(run, 600)
  expect(model).not.toBeNull()
  const attempts = (await jobsIn(system.storeDir)).filter((j) => j.fingerprint === claim.fingerprint)
  // who notices first says so: the scheduler the signal, torchrun an exit code, the other process a lost connection
  expect(attempts.map((j) => (['killed', 'failed'].includes(j.end?.endClass ?? '') ? 'lost' : j.end?.endClass)).sort(), JSON.stringify(attempts.map((j) => j.end))).toEqual(['done', 'lost'])
  expect((await progressOf(run)).recoveries).toBe(1)
  const jobs = (await slurm.mustRun('squeue', ['--states=all', '--noheader', '--format=%j %D'])).trim().split('\n').map((line) => line.trim().split(/ +/))
  // the measurement of the base is placed where the training is
  expect(jobs.filter(([name]) => name?.startsWith(`cpt-${claim.fingerprint.slice(0, 16)}-r0-`)).map(([, nodes]) => nodes)).toEqual(['2', '2'])
  await nothingLeft(system.storeDir)
})
