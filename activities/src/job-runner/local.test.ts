import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { EndRecord, Placement, type JobRequest, type PlacementInput } from '@cpt/contracts/job'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { localDiskStore } from '../artifact-store/local-disk.ts'
import { claimAttempt, jobFolder } from '../claims.ts'
import { sha256 } from '../identity.ts'
import { jobRunnerCases, type CaseJob, type RunnerBench } from './job-runner.cases.ts'
import { JobNotStarted, type JobFolder, type JobRunner, type JobState } from './job-runner.ts'
import { readLogTail, writeEnd } from './job-files.ts'
import { localRunner } from './local.ts'
import { groupMembers, isAlive, marked, signalProcess, Started } from './process.ts'
import { stopWarmParents, warmParent } from './warm-parent.ts'

const ml = fileURLToPath(new URL('../../../ml', import.meta.url))
const caseJob = fileURLToPath(new URL('case_job.py', import.meta.url))

const python = `${ml}/.venv/bin/python`

interface LocalBench extends RunnerBench {
  root: string
  store: ReturnType<typeof localDiskStore>
  /** A runner as it would be on a host of that name. */
  on: (host: string) => JobRunner
  newJob: (does: CaseJob, over?: { leaseSeconds?: number; placement?: PlacementInput }) => Promise<{ job: JobFolder; request: JobRequest }>
  submitFromDeadWorker: (job: JobFolder, request: JobRequest, host?: string) => Promise<void>
}

const openBench = async ({ warm }: { warm: boolean }): Promise<LocalBench> => {
  const root = await mkdtemp(join(tmpdir(), 'cpt-jobs-'))
  const store = localDiskStore({ store: root })
  const stand = join(root, 'python')
  await writeFile(stand, `#!/bin/sh\nexec ${python} ${caseJob} "$@"\n`)
  await chmod(stand, 0o700)
  const settings = { python: stand, mlDir: ml, env: { PATH: '/usr/bin:/bin', PYTHONPATH: ml } }
  const parents = join(root, 'warm')
  const parent = warm ? warmParent({ ...settings, folder: parents, idleSeconds: 600 }) : null
  const jobs: JobFolder[] = []
  const runner = (): JobRunner => localRunner({ ...settings, warm: parent })
  if (parent !== null) {
    await mkdir(join(root, 'nothing'))
    await vi.waitFor(async () => expect(await parent.fork('case', join(root, 'nothing'), settings.env)).not.toBeNull(), { timeout: 30_000, interval: 50 })
  }
  const startedOf = async (path: string): Promise<Started | undefined> => Started.safeParse(JSON.parse(await readFile(path, 'utf8').catch(() => 'null'))).data
  const processes = async (job: JobFolder): Promise<number[]> => {
    const started = await startedOf(join(job.path, 'started.json'))
    const all = (await readdir('/proc')).filter((e) => /^\d+$/.test(e))
    const commands = await Promise.all(all.map(async (pid) => ({ pid: Number(pid), command: await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '') })))
    return [...new Set([...commands.filter((c) => c.command.includes(job.path)).map((c) => c.pid), ...(await marked(`CPT_JOB=${job.path}`)), ...(started === undefined ? [] : await groupMembers(started.pid))])]
  }
  const kill = async (job: JobFolder): Promise<void> => {
    for (const pid of await processes(job)) signalProcess(pid, 'SIGKILL')
  }
  return {
    root,
    store,
    runner: runner(),
    successor: runner,
    on: (host) => localRunner({ ...settings, warm: null, host, marginMs: 500, stacksPatienceMs: 3_000 }),
    submitFromDeadWorker: async (job, request, host = hostname()) => {
      if (warm) {
        await runner().submit(job, request)
        await vi.waitFor(async () => expect(await startedOf(join(job.path, 'started.json'))).toBeDefined(), { timeout: 30_000 })
        const records = (await readdir(parents)).filter((n) => n.endsWith('.json'))
        for (const name of records) signalProcess((await startedOf(join(parents, name)))!.pid, 'SIGKILL')
        return
      }
      const worker = spawn('sh', ['-c', 'setsid "$0" -m cpt_ml case --request "$1/request.json" --result "$1/result.json" 2>>"$1/log.jsonl" &', stand, job.path], { cwd: ml, env: { ...settings.env, CPT_HOST: host }, stdio: 'ignore' })
      await once(worker, 'exit')
    },
    newJob: async (does, { leaseSeconds = 600, placement = {} } = {}) => {
      const fingerprint = sha256(`${does} ${jobs.length}`)
      const job = jobFolder(root, fingerprint, 0, 1)
      const request: JobRequest = {
        format: 'cpt-job/1', stage: 'case', version: 1, fingerprint, range: 0, attempt: 1, token: 'token-1', roots: { store: root }, request: { do: does }, units: null, parents: [], placement: Placement.parse(placement), leaseSeconds,
      }
      await mkdir(job.path, { recursive: true })
      await writeFile(join(job.path, 'request.json'), JSON.stringify(request))
      jobs.push(job)
      return { job, request }
    },
    timesRun: async (job) => (await readdir(job.path)).filter((n) => n.startsWith('ran-')).length,
    processes,
    kill,
    committed: async (job) => (await store.record(job.fingerprint))?.result ?? null,
    close: async () => {
      for (const job of jobs) {
        await kill(job)
        await vi.waitFor(async () => expect(await processes(job)).toEqual([]))
      }
      await stopWarmParents(parents)
      await rm(root, { recursive: true, maxRetries: 5 })
    },
  }
}

jobRunnerCases('processes of this machine, each with a Python of its own', () => openBench({ warm: false }))
jobRunnerCases('processes of this machine, forked from a warm parent', () => openBench({ warm: true }))

describe('processes of this machine', () => {
  let bench: LocalBench
  let bystander: ChildProcess
  beforeEach(async () => {
    bench = await openBench({ warm: false })
    bystander = spawn('sleep', ['600'], { detached: true, stdio: 'ignore' })
    await once(bystander, 'spawn')
  })
  afterEach(async () => {
    bystander.kill('SIGKILL')
    await bench.close()
  })

  const startedAs = async (over: Partial<Started>): Promise<Started> => {
    const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    const stat = await readFile(`/proc/${bystander.pid}/stat`, 'utf8')
    return { pid: bystander.pid!, startTicks: stat.split(')')[1]!.trim().split(' ')[19]!, bootId, host: hostname(), oomKills: 0, ...over }
  }
  const someJob = async (started: Started): Promise<JobFolder> => {
    const { job } = await bench.newJob('hang')
    await writeFile(join(job.path, 'started.json'), JSON.stringify(started))
    return job
  }

  test('the very process is alive; one of that number begun at another time, or before a boot, is not', async () => {
    expect(await isAlive(await startedAs({}))).toBe(true)
    expect(await isAlive(await startedAs({ startTicks: '1' }))).toBe(false)
    expect(await isAlive(await startedAs({ bootId: 'an earlier one' }))).toBe(false)
  })

  test.each([{ startTicks: '1' }, { bootId: 'an earlier one' }])('a process that has the number of a job now (%j) is not taken for it, and not stopped', async (over) => {
    const job = await someJob(await startedAs(over))
    expect(await bench.runner.look(job)).toMatchObject({ state: 'gone' })
    await bench.runner.stop(job, 100)
    expect(await isAlive(await startedAs({}))).toBe(true)
  })

  test('a job that is gone gets an end record with the last words of its log', async () => {
    const job = await someJob(await startedAs({ startTicks: '1' }))
    await writeFile(join(job.path, 'log.jsonl'), 'first\nlast\n')
    await writeEnd(job, { endClass: 'killed', message: 'the process is gone and left no end record', exitCode: null, signal: null })
    expect(await bench.runner.look(job)).toMatchObject({ state: 'ended', end: { endClass: 'killed', message: 'the process is gone and left no end record', logTail: ['first', 'last'] } })
  })

  test('an end record that was there first stays', async () => {
    const job = await someJob(await startedAs({}))
    await writeEnd(job, { endClass: 'killed', message: 'the process was ended by SIGKILL', exitCode: null, signal: 'SIGKILL' })
    await writeEnd(job, { endClass: 'failed', message: 'the process exited with code 1', exitCode: 1, signal: null })
    expect(EndRecord.parse(JSON.parse(await readFile(join(job.path, 'end.json'), 'utf8'))).endClass).toBe('killed')
  })

  test('the tail of a log is its last lines without control characters, however long it is', async () => {
    const { job } = await bench.newJob('hang')
    expect(await readLogTail(job)).toEqual([])
    const lines = Array.from({ length: 5_000 }, (_, i) => `line ${i}`)
    await writeFile(join(job.path, 'log.jsonl'), [...lines, '\u001b[2Jclear\u0007 \u009b31mred', 'x'.repeat(5_000), ''].join('\n'))
    const tail = await readLogTail(job)
    expect(tail).toHaveLength(12)
    expect(tail.slice(-3)).toEqual(['line 4999', ' [2Jclear   31mred', 'x'.repeat(400)])
  })

  test('a half-written beat or a foreign end record is not believed', async () => {
    const job = await someJob(await startedAs({}))
    await writeFile(join(job.path, 'beat.json'), '{"phase": "tra')
    await writeFile(join(job.path, 'end.json'), '{"format": "something else"}')
    expect(await bench.runner.look(job)).toEqual({ state: 'running', beat: null })
  })

  test.each([{ nodes: 2 }, { nodes: 2, processesPerNode: 4 }])('a job of more than one node (%j) is refused, with where it can run', async (over) => {
    const { job, request } = await bench.newJob('commit')
    await expect(bench.runner.submit(job, { ...request, placement: { ...request.placement, ...over } })).rejects.toThrow(JobNotStarted)
    await expect(bench.runner.submit(job, { ...request, placement: { ...request.placement, ...over } })).rejects.toThrow('place it on a cluster or patch the placement')
  })

  test('a machine without the interpreter says so, and what to do', async () => {
    const runner = localRunner({ python: '/nowhere/python', mlDir: ml, env: {}, warm: null })
    const { job, request } = await bench.newJob('commit')
    await expect(runner.submit(job, request)).rejects.toThrow(JobNotStarted)
    await expect(runner.submit(job, request)).rejects.toThrow('run cpt doctor --fix')
  })

  test('a job sees the environment it was given, its marks, and nothing of the worker’s', async () => {
    const shell = join(bench.root, 'show-environment')
    await writeFile(shell, '#!/bin/sh\nenv\n')
    await chmod(shell, 0o700)
    const { job, request } = await bench.newJob('commit')
    await localRunner({ python: shell, mlDir: ml, env: { ONLY: 'this' }, warm: null }).submit(job, request)
    const log = await vi.waitFor(async () => {
      const text = await readFile(join(job.path, 'log.jsonl'), 'utf8')
      expect(text).toContain('ONLY=this')
      return text
    })
    // the shell sets these by itself
    expect(log.trim().split('\n').map((l) => l.split('=')[0]).filter((n) => !['PWD', 'OLDPWD', 'SHLVL', '_'].includes(n!)).sort()).toEqual(['CPT_HOST', 'CPT_JOB', 'ONLY'])
  })
})

/** Looks until the job is in such a state. */
const reach = async <S extends JobState['state']>(runner: JobRunner, job: JobFolder, ...states: S[]): Promise<Extract<JobState, { state: S }>> =>
  await vi.waitFor(async () => {
    const state = await runner.look(job)
    if (!(states as string[]).includes(state.state)) throw new Error(`${job.path} is ${JSON.stringify(state)}`)
    return state as Extract<JobState, { state: S }>
  }, { timeout: 45_000, interval: 50 })
const beating = (runner: JobRunner, job: JobFolder) => vi.waitFor(async () => expect(await runner.look(job)).toMatchObject({ state: 'running', beat: { done: 1 } }), { timeout: 30_000, interval: 20 })
const logOf = (job: JobFolder) => readFile(join(job.path, 'log.jsonl'), 'utf8')

describe('a job of this machine', { timeout: 90_000 }, () => {
  let bench: LocalBench
  beforeEach(async () => {
    bench = await openBench({ warm: false })
  })
  afterEach(() => bench.close())

  test('leaves when its time is over, which is no failure', async () => {
    const { job, request } = await bench.newJob('hang', { placement: { timeLimitSeconds: 1 } })
    await bench.runner.submit(job, request)
    expect((await reach(bench.runner, job, 'ended')).end).toMatchObject({ endClass: 'time-limit', type: 'TimeLimit', exitCode: 75 })
  })

  test('that stands still tells where, and goes on', async () => {
    const { job, request } = await bench.newJob('deaf')
    await bench.runner.submit(job, request)
    await beating(bench.runner, job)
    await bench.runner.dumpStacks(job)
    await vi.waitFor(async () => expect(await logOf(job)).toMatch(/most recent call first[^]*case_stage\.py", line \d+ in run/), { timeout: 10_000 })
    expect((await bench.runner.look(job)).state).toBe('running')
  })

  test('that is halted has no stack to show, and is ended all the same', async () => {
    const { job, request } = await bench.newJob('hang')
    await bench.runner.submit(job, request)
    await beating(bench.runner, job)
    for (const pid of await bench.processes(job)) signalProcess(pid, 'SIGSTOP')
    await vi.waitFor(async () => {
      await bench.runner.dumpStacks(job)
      expect(await logOf(job)).toContain('the process is halted')
    }, { timeout: 10_000 })
    await bench.runner.stop(job, 100)
    expect(await bench.processes(job)).toEqual([])
  })

  test('takes with it what it has started when it is killed alone', async () => {
    const { job, request } = await bench.newJob('clan')
    await bench.submitFromDeadWorker(job, request)
    await beating(bench.runner, job)
    const { pid } = Started.parse(JSON.parse(await readFile(join(job.path, 'started.json'), 'utf8')))
    signalProcess(pid, 'SIGKILL')
    await reach(bench.runner, job, 'gone')
    await vi.waitFor(async () => expect(await bench.processes(job)).toEqual([]), { timeout: 10_000 })
  })

  test('that is gone while the kernel ended processes for memory says so', async () => {
    const { job } = await bench.newJob('hang')
    await writeFile(join(job.path, 'started.json'), JSON.stringify({ pid: 2 ** 22 - 1, startTicks: '1', bootId: (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim(), host: hostname(), oomKills: -1 }))
    expect(await bench.runner.look(job)).toMatchObject({ state: 'gone', end: { message: expect.stringMatching(/the kernel ended \d+ process\(es\) for lack of memory/) } })
  })
})

describe('two hosts that share a work folder', { timeout: 120_000 }, () => {
  let bench: LocalBench
  let here: JobRunner
  beforeEach(async () => {
    bench = await openBench({ warm: false })
    here = bench.on('here')
  })
  afterEach(() => bench.close())
  /** A job on a host named there, whose worker is gone. */
  const startThere = async (does: CaseJob, leaseSeconds: number): Promise<JobFolder> => {
    const { job, request } = await bench.newJob(does, { leaseSeconds })
    await bench.submitFromDeadWorker(job, request, 'there')
    await reach(here, job, 'running')
    return job
  }

  test('see each other’s jobs by pulse and beat, without a look at process numbers', async () => {
    const job = await startThere('hang', 600)
    await beating(here, job)
    const pulse = () => readFile(join(job.path, 'pulse'), 'utf8')
    const before = await pulse()
    await vi.waitFor(async () => expect(await pulse()).not.toBe(before), { timeout: 10_000 })
    expect((await here.look(job)).state).toBe('running')
  })

  test('wait for a silent job until its lease is over, do not renew it, and then take it as vanished', async () => {
    const job = await startThere('hang', 8)
    await beating(here, job)
    await bench.kill(job)
    expect(await reach(here, job, 'unknown')).toMatchObject({ letLeaseRun: true, why: expect.stringContaining('host there') })
    expect((await reach(here, job, 'gone')).end).toMatchObject({ endClass: 'vanished', message: expect.stringContaining('its lease is over') })
  })

  test('do not take over a silent job whose lease somebody else renews', async () => {
    const job = await startThere('hang', 4)
    await beating(here, job)
    await bench.kill(job)
    let counter = 0
    // silent for far longer than its lease and the margin, and its lease is renewed all the while
    await vi.waitFor(async () => {
      await writeFile(join(job.path, 'lease'), `its own host ${counter++}`)
      const state = await here.look(job)
      expect(state.state).not.toBe('gone')
      expect(Number(/for (\d+) s/.exec(state.state === 'unknown' ? state.why : '')?.[1])).toBeGreaterThanOrEqual(8)
    }, { timeout: 60_000, interval: 100 })
    await reach(here, job, 'gone')
  })

  test('a halted job that comes back after it was given up publishes nothing', async () => {
    const job = await startThere('late', 4)
    for (const pid of await bench.processes(job)) signalProcess(pid, 'SIGSTOP')
    const { end } = await reach(here, job, 'gone')
    await writeEnd(job, end)
    await claimAttempt(bench.store, job.fingerprint, 0, 2, { workflow: 'w', run: 'r', key: 'k', decision: 0, runner: 'local', host: 'here', progress: '', at: '' })
    await writeFile(join(job.path, 'go'), '')
    for (const pid of await bench.processes(job)) signalProcess(pid, 'SIGCONT')
    await vi.waitFor(async () => expect(await bench.processes(job)).toEqual([]), { timeout: 30_000, interval: 50 })
    expect(await bench.committed(job)).toBeNull()
    expect((await reach(here, job, 'ended')).end).toMatchObject({ endClass: 'vanished' })
  })

  test('have each other’s jobs tell where they stand, and say so of one that is halted', async () => {
    const job = await startThere('deaf', 600)
    await beating(here, job)
    await here.dumpStacks(job)
    expect(await logOf(job)).toMatch(/rank 0 \(process \d+ on [^)]+\) stands here:\n[^]*case_stage\.py", line \d+ in run/)
    for (const pid of await bench.processes(job)) signalProcess(pid, 'SIGSTOP')
    await here.dumpStacks(job)
    expect(await logOf(job)).toMatch(/rank 0 did not answer in 3 s: halted, gone, or in a call that lets no other thread run\n$/)
    await bench.kill(job)
  })

  test('stop each other’s jobs: the job reads that it is not wanted, saves and leaves', async () => {
    const job = await startThere('hang', 600)
    await beating(here, job)
    await here.stop(job, 30_000)
    expect((await reach(here, job, 'ended')).end).toMatchObject({ endClass: 'stopped', type: 'Stopped' })
    await vi.waitFor(async () => expect(await bench.processes(job)).toEqual([]), { timeout: 10_000 })
  })

  test('a job that does not listen to another host ends itself when the grace is over', async () => {
    const job = await startThere('deaf', 600)
    await beating(here, job)
    await here.stop(job, 500)
    expect((await reach(here, job, 'ended')).end).toMatchObject({ endClass: 'killed', signal: 'SIGKILL', message: 'case: told to leave (asked) and did not listen: it ended itself' })
    await vi.waitFor(async () => expect(await bench.processes(job)).toEqual([]), { timeout: 10_000 })
  })

  test('stop a job whose host is gone by waiting until it can do no harm', async () => {
    const job = await startThere('hang', 2)
    await bench.kill(job)
    await here.stop(job, 100)
    expect((await here.look(job)).state).toBe('gone')
  })

  test('start here what was claimed there and never began', async () => {
    const { job, request } = await bench.newJob('commit')
    expect((await here.look(job)).state).toBe('absent')
    await here.submit(job, request)
    expect((await reach(here, job, 'ended')).end.endClass).toBe('done')
  })
})
