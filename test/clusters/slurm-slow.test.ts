import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { startSlurm, type Slurm } from '../../infra/slurm/start.mjs'
import { until } from '../harness/until.ts'
import { openSlurmBench, type SlurmBench } from './slurm-bench.ts'

// Slurm counts limits in minutes and forgets jobs once a minute: these wait for it side by side
describe.concurrent('what takes Slurm a minute', () => {
  let slurm: Slurm
  let bench: SlurmBench
  beforeAll(async () => {
    slurm = await startSlurm({
      nodes: ['n1', 'n2', 'n3', 'n4'],
      settings: { MinJobAge: 2, SlurmdTimeout: 20, PreemptType: 'preempt/partition_prio', PreemptMode: 'CANCEL' },
      partitions: [
        { name: 'main', nodes: 'n1,n2', options: 'Default=YES PreemptMode=OFF' },
        { name: 'low', nodes: 'n3', options: 'PriorityTier=1 PreemptMode=CANCEL GraceTime=0' },
        { name: 'high', nodes: 'n3', options: 'PriorityTier=10 PreemptMode=OFF' },
        { name: 'frail', nodes: 'n4', options: 'PreemptMode=OFF' },
      ],
    })
    bench = await openSlurmBench(slurm)
  })
  afterAll(async () => {
    await bench.close()
    await slurm.stop()
  })
  const pool = (partition: string) => bench.runnerWith({ settings: { pools: { default: { partition } } } })
  const begun = (path: string) => until('a beat', () => existsSync(join(path, 'beat.json')), 120)

  test('a job is told before its time limit, saves, ends as time-limit, and the next attempt goes on from there', async ({ expect }) => {
    const counter = join(bench.root, 'counter')
    const { job, request } = await bench.makeJob({ do: 'save', counter }, { placement: { timeLimitSeconds: 60 } })
    await bench.runner.submit(job, request)
    const { end } = await bench.reach(job, 'ended', bench.runner, 240)
    expect(end).toMatchObject({ endClass: 'time-limit', type: 'TimeLimit' })
    const saved = Number(await readFile(counter, 'utf8'))
    expect(saved).toBeGreaterThan(0)
    const next = await bench.makeJob({ do: 'save', counter }, { fingerprint: job.fingerprint, attempt: 2 })
    await bench.runner.submit(next.job, next.request)
    await begun(next.job.path)
    await writeFile(join(next.job.path, 'enough'), '')
    expect((await bench.reach(next.job, 'ended', bench.runner, 240)).end.endClass).toBe('done')
    expect((await bench.committed(next.job)) as { count: number }).toMatchObject({ count: expect.toSatisfy((n: number) => n > saved) as number })
  })

  test('of a job that Slurm has forgotten its own end record is the truth, and without one it is gone once its pulse stands still', async ({ expect }) => {
    const done = await bench.makeJob({ do: 'commit' })
    const killed = await bench.makeJob({ do: 'hang' })
    await bench.runner.submit(done.job, done.request)
    await bench.submitFromDeadWorker(killed.job, killed.request)
    await begun(killed.job.path)
    await bench.kill(killed.job)
    await until('Slurm to forget both', async () => (await bench.rows(done.job)).length + (await bench.rows(killed.job)).length === 0, 240)
    const later = bench.runnerWith({})
    expect((await bench.reach(done.job, 'ended', later)).end.endClass).toBe('done')
    const { end } = await bench.reach(killed.job, 'gone', later)
    expect(end).toMatchObject({ endClass: 'vanished', message: expect.stringContaining('its pulse stood still for 8 s') as string })
  })

  test('a job that gives way to a more important one ends as preempted', async ({ expect }) => {
    const low = pool('low')
    const { job, request } = await bench.makeJob({ do: 'deaf' })
    await low.submit(job, request)
    await begun(job.path)
    await slurm.mustRun('sbatch', ['--partition=high', '--exclusive', '--wrap=true', '--output=/dev/null'])
    expect((await bench.reach(job, 'gone', low, 240)).end).toMatchObject({ endClass: 'preempted', scheduler: { state: 'PREEMPTED', nodes: ['n3'] } })
  })

  test('a job whose node is lost ends as node-lost, with the node’s name', async ({ expect }) => {
    const frail = pool('frail')
    const { job, request } = await bench.makeJob({ do: 'hang' })
    await frail.submit(job, request)
    await begun(job.path)
    const [row] = await bench.rows(job)
    await slurm.slurmds['n4']?.kill()
    // a machine that is gone reports nothing more: neither its daemon nor what watches over the step
    for (const pid of slurm.processes()) if ((await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).startsWith(`slurmstepd: [${row?.id}.`)) process.kill(pid, 'SIGKILL')
    bench.orphan(job)
    await bench.kill(job)
    expect((await bench.reach(job, 'gone', frail, 240)).end).toMatchObject({ endClass: 'node-lost', scheduler: { state: 'NODE_FAIL', nodes: ['n4'] } })
  })
})
