import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sha256 } from '@cpt/activities/identity'
import { JobNotStarted, type JobFolder } from '@cpt/activities/job-runner/job-runner'
import type { Answer, SlurmCommand } from '@cpt/activities/job-runner/slurm-commands'
import { submissionsOf } from '@cpt/activities/job-runner/slurm-submissions'
import { startSlurm, type Slurm } from '../../infra/slurm/start.mjs'
import { until } from '../harness/until.ts'
import { openSlurmBench, type SlurmBench } from './slurm-bench.ts'

let slurm: Slurm
let bench: SlurmBench
beforeAll(async () => {
  slurm = await startSlurm()
})
afterAll(() => slurm.stop())
beforeEach(async () => {
  await healthy()
  bench = await openSlurmBench(slurm)
})
afterEach(() => bench.close())

/** Whatever a test before did to the cluster is over. */
const healthy = async (): Promise<void> => {
  slurm.ctld.resume()
  await slurm.ctld.start()
  await slurm.mustRun('scontrol', ['reconfigure'])
  await slurm.mustRun('scontrol', ['update', 'PartitionName=main', 'State=UP'])
  await until('three nodes to take jobs', async () => {
    const states = (await slurm.run('sinfo', ['-h', '-N', '-o', '%T'])).stdout.trim().split('\n')
    // refused for a node that is up
    if (states.some((s) => /^(drain|down)/.test(s))) await slurm.run('scontrol', ['update', 'NodeName=n1,n2,n3', 'State=RESUME'])
    return states.length === 3 && states.every((s) => /^(idle|mixed|allocated)$/.test(s))
  })
}

/** The real programs; each answer to sbatch is seen, and may be acted on before the runner has it. */
const watched = (onSbatch: (answer: Answer) => Promise<void> | void): SlurmCommand => async (program, args) => {
  const answer = await bench.command(program, args)
  if (program === 'sbatch') await onSbatch(answer)
  return answer
}
const submitted = async (job: JobFolder) => (await bench.rows(job)).length
const inMinutes = (deadlineMinutes: number) => deadlineMinutes * 60

describe('answers that get lost', () => {
  test('a job whose submission timed out at a held scheduler exists all the same, and is not submitted again', async () => {
    const answers: Answer[] = []
    const runner = bench.runnerWith({ run: watched((a) => void answers.push(a)) })
    // a runner that knows its cluster already: another one would not even try
    const before = await bench.makeJob({ do: 'commit' })
    await runner.submit(before.job, before.request)
    const { job, request } = await bench.makeJob({ do: 'commit' })
    slurm.ctld.pause()
    try {
      await runner.submit(job, request)
      expect(['waiting', 'unknown']).toContain((await runner.look(job)).state)
      await until('sbatch to give up', () => answers.length === 2, inMinutes(2))
    } finally {
      slurm.ctld.resume()
    }
    expect(answers[1]).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('Socket timed out') as string })
    const { end } = await reachResubmitting(runner, job, request)
    expect(end.endClass).toBe('done')
    expect(await submitted(job)).toBe(1)
    expect(await bench.timesRun(job)).toBe(1)
  })

  test('sbatch that is killed at any moment leaves one job each, whether the scheduler had it already or not', async () => {
    const killed = (afterMs: number): SlurmCommand => {
      let first = true
      return (program, args) => {
        if (program !== 'sbatch' || !first) return bench.command(program, args)
        first = false
        return new Promise((resolve) => {
          execFile('sbatch', args, { env: slurm.env, timeout: afterMs, killSignal: 'SIGKILL' }, (_, stdout) => resolve({ code: null, stdout: '', stderr: stdout === '' ? '' : 'killed' }))
        })
      }
    }
    const delays = [2, 5, 8, 11, 14, 17, 20, 25, 30, 40, 60, 400]
    const seen = await Promise.all(delays.map(async (afterMs) => {
      const { job, request } = await bench.makeJob({ do: 'commit' }, { fingerprint: sha256(`${bench.root} killed ${afterMs}`) })
      const runner = bench.runnerWith({ run: killed(afterMs) })
      await runner.submit(job, request)
      const first = await submissionsOf(job)
      expect(first).toHaveLength(1)
      const { end } = await reachResubmitting(runner, job, request)
      return { endClass: end.endClass, submitted: await submitted(job), timesRun: await bench.timesRun(job) }
    }))
    expect(seen).toEqual(delays.map(() => ({ endClass: 'done', submitted: 1, timesRun: 1 })))
  })

  test('a job that a crash of the scheduler forgot is submitted once more, and another’s job that got its number is neither read nor cancelled', async () => {
    await slurm.mustRun('scontrol', ['update', 'PartitionName=main', 'State=DOWN'])
    const runner = bench.runnerWith({ run: watched(() => slurm.ctld.kill()) })
    const { job, request } = await bench.makeJob({ do: 'commit' })
    await runner.submit(job, request)
    const [first] = await submissionsOf(job)
    expect(first).toMatchObject({ state: 'submitted', jobId: expect.stringMatching(/^\d+$/) as string })
    await schedulerBack()
    await slurm.mustRun('scontrol', ['update', 'PartitionName=main', 'State=UP'])
    const hold = async () => (await slurm.mustRun('sbatch', ['--parsable', '--hold', '--job-name=another', '--comment=of someone else', '--wrap=sleep 600'])).trim()
    // numbers begin again where the last saved state left off
    const others = [await hold()]
    while (others.length < 40 && !others.includes(first?.jobId ?? '')) others.push(await hold())
    const other = first?.jobId ?? ''
    expect(others).toContain(other)

    const { end } = await reachResubmitting(bench.runner, job, request)
    expect(end.endClass).toBe('done')
    expect(await bench.timesRun(job)).toBe(1)
    await bench.runner.stop(job, 0)
    expect((await submissionsOf(job)).map((s) => s.state).sort()).toEqual(['lost', 'submitted'])
    expect((await slurm.mustRun('squeue', ['-h', '-j', other, '-o', '%j %T'])).trim()).toBe('another PENDING')
    await slurm.mustRun('scancel', others)
  })
})

describe('a scheduler that crashed before it saved that a job had ended', () => {
  test('takes it to be running, and the next attempt does not wait for it', async () => {
    const fingerprint = sha256(`${bench.root} attempts`)
    const first = await bench.makeJob({ do: 'wait' }, { fingerprint })
    await bench.runner.submit(first.job, first.request)
    await until('the job itself to work', () => existsSync(join(first.job.path, 'beat.json')))
    const [state, before] = [join(slurm.folder, 'state'), join(slurm.folder, 'state-before')]
    // a crash loses what happened since the state was saved; here it is saved now, and taken back by hand
    await slurm.ctld.kill('SIGTERM')
    await cp(state, before, { recursive: true })
    await schedulerBack()
    await bench.kill(first.job)
    const { end } = await bench.reach(first.job, 'ended')
    expect(end.endClass).toBe('killed')
    await slurm.ctld.kill()
    await rm(state, { recursive: true })
    await rename(before, state)
    await slurm.ctld.start()

    const next = await bench.makeJob({ do: 'commit' }, { fingerprint, attempt: 2 })
    await bench.runner.submit(next.job, next.request)
    await until('the scheduler to hold the next attempt up', async () => {
      const seen = await bench.runner.look(next.job)
      return seen.state === 'waiting' && seen.reason.includes('Dependency')
    })
    expect((await reachResubmitting(bench.runner, next.job, next.request)).end.endClass).toBe('done')
    const rows = await bench.rows(first.job)
    expect(rows.find((r) => r.comment.includes('/a1/'))?.state).toMatch(/^CANCELLED/)
  })
})

/** After a crash the nodes tell the scheduler that they are there when it asks; here it asks at once. */
const schedulerBack = async (): Promise<void> => {
  await slurm.ctld.start()
  await slurm.mustRun('scontrol', ['reconfigure'])
}

/** Watches as an activity does: what is absent is submitted again. */
const reachResubmitting = (runner: SlurmBench['runner'], job: JobFolder, request: Parameters<SlurmBench['runner']['submit']>[1]) =>
  until(`${job.path} to end`, async () => {
    const state = await runner.look(job)
    if (state.state === 'gone') throw new Error(JSON.stringify(state))
    if (state.state === 'absent') await runner.submit(job, request)
    return state.state === 'ended' ? state : null
  }, inMinutes(3))

describe('what reaches a job', () => {
  test('a folder’s name with blanks, quotes, %, a command and a line of options is a name and nothing else', async () => {
    const evil = 'a b"\'%j;$(touch pwned)`touch pwned`\n#SBATCH --time=1\ntouch pwned'
    const own = await openSlurmBench(slurm, evil)
    try {
      const fingerprint = sha256(own.root)
      const ranges = await Promise.all([0, 1].map((range) => own.makeJob({ do: 'commit' }, { fingerprint, range, units: [] })))
      const single = await own.makeJob({ do: 'commit' })
      await Promise.all([...ranges, single].map(({ job, request }) => own.runner.submit(job, request)))
      for (const { job } of [...ranges, single]) expect((await own.reach(job, 'ended')).end.endClass).toBe('done')
      expect((await own.rows(single.job))[0]?.name).toMatch(/^cpt-[0-9a-f]{16}-r0-[0-9a-f]{8}$/)
      const everywhere = await Promise.all([own.root, join(own.root, '..'), join(slurm.folder, 'spool')].map((folder) => readdir(folder, { recursive: true })))
      expect(everywhere.flat().filter((name) => name.endsWith('pwned') && !name.includes('#SBATCH'))).toEqual([])
    } finally {
      await own.close()
    }
  })

  test('a job’s environment is what it was given and what Slurm says of its allocation: no secret of the worker, nothing of a login', async () => {
    const keep = { ...process.env }
    Object.assign(process.env, { WORKER_SECRET: 'do not pass on', SLURM_SECRET: 'nor this' })
    try {
      const runner = bench.runnerWith({ env: { GIVEN: 'with "quotes"\nand a line' } })
      const { job, request } = await bench.makeJob({ do: 'environment' })
      await runner.submit(job, request)
      await bench.reach(job, 'ended', runner)
      const { environment } = (await bench.committed(job)) as { environment: Record<string, string> }
      expect(environment).toMatchObject({ GIVEN: 'with "quotes"\nand a line', PATH: '/usr/bin:/bin' })
      expect(JSON.stringify(environment)).not.toMatch(/do not pass on|nor this/)
      // the last five are what the job sets for its own thread pools
      expect(Object.keys(environment).filter((name) => !/^SLURM/.test(name)).sort()).toEqual(['GIVEN', 'LC_CTYPE', 'MKL_NUM_THREADS', 'OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'OPENBLAS_NUM_THREADS', 'PATH', 'PYTHONDONTWRITEBYTECODE', 'PYTHONPATH', 'RAYON_NUM_THREADS'])
    } finally {
      for (const name of ['WORKER_SECRET', 'SLURM_SECRET']) if (keep[name] === undefined) Reflect.deleteProperty(process.env, name)
    }
  })

  test('hosts of the exclude list are not used', async () => {
    const { job, request } = await bench.makeJob({ do: 'commit' }, { placement: { excludeNodes: ['n1', 'n3'] } })
    await bench.runner.submit(job, request)
    await bench.reach(job, 'ended')
    expect((await bench.rows(job)).map((r) => r.nodes)).toEqual(['n2'])
  })

  test('a job that Slurm refuses for good says why at once', async () => {
    const runner = bench.runnerWith({ settings: { pools: { default: { partition: 'nowhere' } } } })
    const { job, request } = await bench.makeJob({ do: 'commit' })
    await expect(runner.submit(job, request)).rejects.toThrow(JobNotStarted)
    await expect(runner.submit(job, request)).rejects.toThrow('Batch job submission failed: Invalid partition name specified; mend the pool in CPT_SLURM or patch the placement')
    const elsewhere = bench.runnerWith({ settings: { cluster: 'another' } })
    await expect(elsewhere.submit(job, request)).rejects.toThrow(`CPT_SLURM names the cluster another, but ${slurm.cluster} answers`)
  })
})

describe('ranges of a stage', () => {
  test('that are submitted together become one array, and a range tried again goes alone', async () => {
    const fingerprint = sha256(`${bench.root} array`)
    const ranges = await Promise.all([0, 1, 2, 3, 4].map((range) => bench.makeJob({ do: range === 3 ? 'fail' : 'commit' }, { fingerprint, range, units: [] })))
    await Promise.all(ranges.map(({ job, request }) => bench.runner.submit(job, request)))
    const ends = await Promise.all(ranges.map(({ job }) => bench.reach(job, 'ended')))
    expect(ends.map((e) => e.end.endClass)).toEqual(['done', 'done', 'done', 'bad-data', 'done'])
    const rows = await bench.rows(ranges[0]!.job)
    expect(new Set(rows.map((r) => r.array)).size).toBe(1)
    expect(rows.map((r) => r.task).sort()).toEqual([0, 1, 2, 3, 4])
    for (const { job } of ranges) expect(await bench.timesRun(job)).toBe(1)

    const again = await bench.makeJob({ do: 'commit' }, { fingerprint, range: 3, attempt: 2, units: [] })
    await bench.runner.submit(again.job, again.request)
    expect((await bench.reach(again.job, 'ended')).end.endClass).toBe('done')
    expect((await bench.rows(again.job)).filter((r) => r.task === null)).toMatchObject([{ name: expect.stringMatching(/-r3-/) as string }])
  })

  test('stopping one task of an array leaves the others', async () => {
    const fingerprint = sha256(`${bench.root} array of two`)
    const [one, two] = await Promise.all([0, 1].map((range) => bench.makeJob({ do: 'hang' }, { fingerprint, range, units: [] })))
    await Promise.all([one!, two!].map(({ job, request }) => bench.runner.submit(job, request)))
    for (const { job } of [one!, two!]) await until('a beat', async () => (await bench.runner.look(job)).state === 'running' && existsSync(join(job.path, 'beat.json')), 60)
    await bench.runner.stop(one!.job, 20_000)
    expect((await bench.reach(one!.job, 'ended')).end.endClass).toBe('stopped')
    expect(await bench.processes(one!.job)).toEqual([])
    expect((await bench.runner.look(two!.job)).state).toBe('running')
  })
})

describe('a scheduler in trouble', () => {
  test('that is down is no failure of a job: one that runs is seen by its pulse, one that waits is not known, and both go on', async () => {
    const running = await bench.makeJob({ do: 'late' })
    await bench.runner.submit(running.job, running.request)
    await until('the job to begin', () => existsSync(join(running.job.path, 'pulse')), 60)
    await slurm.mustRun('scontrol', ['update', 'NodeName=n1,n2,n3', 'State=DRAIN', 'Reason=test'])
    const waiting = await bench.makeJob({ do: 'commit' })
    await bench.runner.submit(waiting.job, waiting.request)
    const { reason } = await bench.reach(waiting.job, 'waiting')
    expect(reason).toMatch(/^Slurm: /)
    await until('the reason to be the nodes', async () => {
      const state = await bench.runner.look(waiting.job)
      return state.state === 'waiting' && state.reason.includes('nodes it needs are down, drained or reserved')
    }, 60)
    // a scheduler that was killed within seconds of a change forgets it
    await until('the scheduler to have saved its state', async () => (await readFile(join(slurm.folder, 'state/job_state'), 'latin1')).includes(waiting.job.fingerprint.slice(0, 16)), 60)
    await slurm.ctld.kill()
    const why = await bench.reach(waiting.job, 'unknown')
    expect(why.why).toMatch(/^Slurm: /)
    const onItsOwn = bench.runnerWith({})
    await bench.reach(running.job, 'running', onItsOwn)
    await healthy()
    await writeFile(join(running.job.path, 'go'), '')
    expect((await bench.reach(running.job, 'ended')).end.endClass).toBe('done')
    expect((await bench.reach(waiting.job, 'ended')).end.endClass).toBe('done')
    expect([await submitted(running.job), await submitted(waiting.job)]).toEqual([1, 1])
  })

  test('a job that someone cancels outside saves and ends as stopped; one that waits is on record as cancelled', async () => {
    const counter = join(bench.root, 'counter')
    const running = await bench.makeJob({ do: 'save', counter })
    await bench.runner.submit(running.job, running.request)
    await until('a beat', () => existsSync(join(running.job.path, 'beat.json')), 60)
    await slurm.mustRun('scancel', [(await bench.rows(running.job))[0]?.id ?? ''])
    expect((await bench.reach(running.job, 'ended')).end).toMatchObject({ endClass: 'stopped' })
    expect(Number(await readFile(counter, 'utf8'))).toBeGreaterThan(0)

    await slurm.mustRun('scontrol', ['update', 'PartitionName=main', 'State=DOWN'])
    const waiting = await bench.makeJob({ do: 'commit' })
    await bench.runner.submit(waiting.job, waiting.request)
    await bench.reach(waiting.job, 'waiting')
    await slurm.mustRun('scancel', [(await bench.rows(waiting.job))[0]?.id ?? ''])
    await slurm.mustRun('scontrol', ['update', 'PartitionName=main', 'State=UP'])
    expect((await bench.reach(waiting.job, 'gone')).end).toMatchObject({ endClass: 'killed', scheduler: { state: 'CANCELLED' } })
  })

  test('a waiting job is stopped before it begins, and nothing of it runs later', async () => {
    await slurm.mustRun('scontrol', ['update', 'PartitionName=main', 'State=DOWN'])
    const { job, request } = await bench.makeJob({ do: 'commit' })
    await bench.runner.submit(job, request)
    await bench.reach(job, 'waiting')
    await bench.successor().stop(job, 20_000)
    await slurm.mustRun('scontrol', ['update', 'PartitionName=main', 'State=UP'])
    expect((await bench.reach(job, 'ended')).end).toMatchObject({ endClass: 'stopped', message: 'stopped before it began' })
    expect((await bench.rows(job)).map((r) => r.state)).toEqual(['CANCELLED'])
    expect(await bench.timesRun(job)).toBe(0)
  })
})

describe('several processes', () => {
  test.each([{ nodes: 2, processesPerNode: 1 }, { nodes: 1, processesPerNode: 2 }])('$nodes nodes with $processesPerNode processes each sum their numbers, and one of them speaks', async (placement) => {
    const { job, request } = await bench.makeJob({ do: 'gather' }, { placement })
    await bench.runner.submit(job, request)
    expect((await bench.reach(job, 'ended', bench.runner, inMinutes(5))).end).toMatchObject({ endClass: 'done' })
    const result = (await bench.committed(job)) as { sum: number; world: number; places: { rank: number; node: string }[] }
    expect(result).toMatchObject({ sum: 3, world: 2 })
    expect(result.places.map((p) => p.rank)).toEqual([0, 1])
    expect(new Set(result.places.map((p) => p.node)).size).toBe(placement.nodes)
    expect(await submitted(job)).toBe(1)
  })
})

test('a bench leaves nothing behind', async () => {
  const { job, request } = await bench.makeJob({ do: 'family' })
  await bench.runner.submit(job, request)
  await until('both processes', async () => (await bench.processes(job)).length === 2, 60)
  await bench.runner.stop(job, 20_000)
  expect(await bench.processes(job)).toEqual([])
  expect((await readdir(job.path)).filter((name) => name.startsWith('.tmp'))).toEqual([])
  await mkdir(bench.root, { recursive: true })
})
