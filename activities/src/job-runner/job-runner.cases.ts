import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { JobRequest, PlacementInput } from '@cpt/contracts/job'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { JobFolder, JobRunner, JobState } from './job-runner.ts'

/** What the stand-in job does once it runs: the requests of case_stage.py. */
export type CaseJob = 'commit' | 'fail' | 'die' | 'hang' | 'deaf' | 'family' | 'clan' | 'late' | 'rank-fails'

/** A runner, and what a test may do around it. */
export interface RunnerBench {
  runner: JobRunner
  /** Another runner on the same jobs, as after a worker's death: it knows only what lies in the store. */
  successor: () => JobRunner
  /** Starts the job as a worker would that dies at once: nobody is left who sees the process end. */
  submitFromDeadWorker: (job: JobFolder, request: JobRequest) => Promise<void>
  /** A new attempt whose request lies in its folder. */
  newJob: (does: CaseJob, over?: { placement?: PlacementInput }) => Promise<{ job: JobFolder; request: JobRequest }>
  /** How many processes began the stage's work. */
  timesRun: (job: JobFolder) => Promise<number>
  /** Numbers of the processes that live for this job, children too. */
  processes: (job: JobFolder) => Promise<number[]>
  /** Ends all of a running job's processes at once, without a word. */
  kill: (job: JobFolder) => Promise<void>
  /** What the stage committed, or null. */
  committed: (job: JobFolder) => Promise<unknown>
  close: () => Promise<void>
}

const isRunning = (s: JobState): s is Extract<JobState, { state: 'running' }> => s.state === 'running' && s.beat !== null
const hasEnded = (s: JobState): s is Extract<JobState, { state: 'ended' }> => s.state === 'ended'

/** What holds for every runner of jobs. */
export const jobRunnerCases = (name: string, open: () => Promise<RunnerBench>): void => {
  describe(`a job runner (${name})`, { timeout: 60_000 }, () => {
    let bench: RunnerBench
    beforeEach(async () => {
      bench = await open()
    })
    afterEach(() => bench.close())

    const reach = async <S extends JobState>(job: JobFolder, is: (s: JobState) => s is S, runner = bench.runner): Promise<S> =>
      await vi.waitFor(async () => {
        const state = await runner.look(job)
        if (!is(state)) throw new Error(`${job.path} is ${JSON.stringify(state)}`)
        return state
      }, { timeout: 30_000, interval: 20 })
    const start = async (does: CaseJob): Promise<JobFolder> => {
      const { job, request } = await bench.newJob(does)
      await bench.runner.submit(job, request)
      return job
    }

    test('knows nothing of a job that was never submitted', async () => {
      const { job } = await bench.newJob('commit')
      expect(await bench.runner.look(job)).toEqual({ state: 'absent' })
    })

    test('runs a job to its end record, and its commit is there', async () => {
      const job = await start('commit')
      const { end } = await reach(job, hasEnded)
      expect(end).toMatchObject({ endClass: 'done', exitCode: 0, signal: null })
      expect(await bench.committed(job)).toEqual({ by: 'token-1' })
    })

    test('passes on how a job says it failed', async () => {
      const { end } = await reach(await start('fail'), hasEnded)
      expect(end).toMatchObject({ endClass: 'bad-data', type: 'BadData', message: 'the data are bad', exitCode: 65 })
    })

    test('writes the end record of a job that died without a word, from its exit code', async () => {
      const { end } = await reach(await start('die'), hasEnded)
      expect(end).toMatchObject({ endClass: 'do-not-restart', exitCode: 93, type: 'JobEnded' })
    })

    test('runs a job once that is submitted twice, and the second leaves no end record', async () => {
      const { job, request } = await bench.newJob('hang')
      await Promise.all([bench.runner.submit(job, request), bench.successor().submit(job, request)])
      await reach(job, isRunning)
      await vi.waitFor(async () => expect(await bench.processes(job)).toHaveLength(1), { timeout: 30_000 })
      // a job that ends later is on record: so is whatever the loser's end would have brought
      await reach(await start('die'), hasEnded)
      expect(await bench.timesRun(job)).toBe(1)
      expect((await bench.runner.look(job)).state).toBe('running')
    })

    test('runs nothing again of a job that has ended', async () => {
      const { job, request } = await bench.newJob('fail')
      await bench.runner.submit(job, request)
      const first = await reach(job, hasEnded)
      await bench.successor().submit(job, request)
      await vi.waitFor(async () => expect(await bench.processes(job)).toEqual([]), { timeout: 30_000 })
      expect(await bench.runner.look(job)).toEqual(first)
      expect(await bench.timesRun(job)).toBe(1)
    })

    test('finds a job that another runner started, with its beat', async () => {
      const job = await start('hang')
      const { beat } = await reach(job, isRunning, bench.successor())
      expect(beat).toMatchObject({ phase: 'waiting', done: 1, total: 2, step: 7 })
    })

    test('lets a successor stop what its predecessor started', async () => {
      const job = await start('hang')
      await reach(job, isRunning)
      await bench.successor().stop(job, 20_000)
      expect(await bench.processes(job)).toEqual([])
      expect((await reach(job, hasEnded)).end).toMatchObject({ endClass: 'stopped', type: 'Stopped' })
    })

    test('stops a job with all it has started', async () => {
      const job = await start('family')
      await vi.waitFor(async () => expect((await bench.processes(job)).length).toBe(2), { timeout: 30_000 })
      await reach(job, isRunning)
      const before = performance.now()
      await bench.runner.stop(job, 30_000)
      expect(await bench.processes(job)).toEqual([])
      // what was started got the signal too, and was not killed when the grace was over
      expect(performance.now() - before).toBeLessThan(25_000)
    })

    test('stops what a job has started in a session of its own', async () => {
      const job = await start('clan')
      await vi.waitFor(async () => expect((await bench.processes(job)).length).toBe(2), { timeout: 30_000 })
      await reach(job, isRunning)
      await bench.successor().stop(job, 30_000)
      expect(await bench.processes(job)).toEqual([])
    })

    test('makes a job leave that does not listen', async () => {
      const job = await start('deaf')
      await reach(job, isRunning)
      await bench.runner.stop(job, 100)
      expect(await bench.processes(job)).toEqual([])
      expect((await reach(job, hasEnded)).end).toMatchObject({ endClass: 'killed', signal: 'SIGKILL' })
    })

    test('stops a job that was never started or has ended without complaint', async () => {
      const { job } = await bench.newJob('commit')
      await bench.runner.stop(job, 100)
      const ended = await start('commit')
      await reach(ended, hasEnded)
      await bench.runner.stop(ended, 100)
      expect((await reach(ended, hasEnded)).end.endClass).toBe('done')
    })

    test('puts on record that a job was killed, also for a runner that did not start it', async () => {
      const job = await start('hang')
      await reach(job, isRunning)
      await bench.kill(job)
      expect((await reach(job, hasEnded, bench.successor())).end).toMatchObject({ endClass: 'killed', signal: 'SIGKILL' })
    })

    test('says of a job that was killed after its worker had died that it is gone', async () => {
      const { job, request } = await bench.newJob('hang')
      await bench.submitFromDeadWorker(job, request)
      await reach(job, isRunning)
      await bench.kill(job)
      await reach(job, (s): s is Extract<JobState, { state: 'gone' }> => s.state === 'gone')
    })

    const startMany = async (does: CaseJob, processesPerNode: number): Promise<JobFolder> => {
      const { job, request } = await bench.newJob(does, { placement: { processesPerNode } })
      await bench.runner.submit(job, request)
      return job
    }
    const allRunning = async (job: JobFolder, count: number): Promise<number[]> => {
      await reach(job, isRunning)
      await vi.waitFor(async () => expect(await bench.timesRun(job)).toBe(count), { timeout: 30_000 })
      return await bench.processes(job)
    }

    test('runs a job as several processes, of which one commits', async () => {
      const job = await startMany('commit', 3)
      const { end } = await reach(job, hasEnded)
      expect(end).toMatchObject({ endClass: 'done', exitCode: 0, signal: null })
      expect(await bench.timesRun(job)).toBe(3)
      expect(await bench.committed(job)).toEqual({ by: 'token-1' })
    })

    test('stops all processes of a job', async () => {
      const job = await startMany('hang', 3)
      expect(await allRunning(job, 3)).toHaveLength(3)
      await bench.successor().stop(job, 20_000)
      expect(await bench.processes(job)).toEqual([])
      expect((await reach(job, hasEnded)).end).toMatchObject({ endClass: 'stopped', type: 'Stopped' })
    })

    test('has each process of a job that stands still tell where, and lets it go on', async () => {
      const job = await startMany('deaf', 2)
      const pids = await allRunning(job, 2)
      await bench.runner.dumpStacks(job)
      await vi.waitFor(async () => {
        const log = await readFile(join(job.path, 'log.jsonl'), 'utf8')
        for (const rank of [0, 1]) expect(log).toMatch(new RegExp(`rank ${rank} \\(process (${pids.join('|')})`))
        expect(log.match(/case_stage\.py", line \d+ in run/g)).toHaveLength(2)
        expect(log).not.toContain('did not answer')
      }, { timeout: 10_000 })
      expect((await bench.runner.look(job)).state).toBe('running')
      expect((await bench.processes(job)).sort()).toEqual(pids.sort())
    })

    test('ends a job of which one process fails, with what that one says', async () => {
      const job = await startMany('rank-fails', 3)
      expect((await reach(job, hasEnded)).end).toMatchObject({ endClass: 'bad-data', type: 'BadData', message: 'the data are bad', exitCode: 65 })
      await vi.waitFor(async () => expect(await bench.processes(job)).toEqual([]), { timeout: 30_000 })
    })

    test('ends a job of which one process is killed, with the signal', async () => {
      const job = await startMany('hang', 2)
      const pids = await allRunning(job, 2)
      process.kill(Math.max(...pids), 'SIGKILL')
      const { end } = await reach(job, hasEnded)
      expect(end).toMatchObject({ endClass: 'killed', signal: 'SIGKILL' })
      await vi.waitFor(async () => expect(await bench.processes(job)).toEqual([]), { timeout: 30_000 })
    })
  })
}
