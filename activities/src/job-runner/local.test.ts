import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { EndRecord, Placement, type JobRequest } from '@cpt/contracts/job'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { localDiskStore } from '../artifact-store/local-disk.ts'
import { jobFolder } from '../claims.ts'
import { sha256 } from '../identity.ts'
import { jobRunnerCases, type RunnerBench } from './job-runner.cases.ts'
import { JobNotStarted, type JobFolder } from './job-runner.ts'
import { localRunner, readLogTail, writeEnd } from './local.ts'
import { groupMembers, isAlive, Started } from './process.ts'

const ml = fileURLToPath(new URL('../../../ml', import.meta.url))
const caseJob = fileURLToPath(new URL('case_job.py', import.meta.url))

const openBench = async (): Promise<RunnerBench & { root: string; store: ReturnType<typeof localDiskStore> }> => {
  const root = await mkdtemp(join(tmpdir(), 'cpt-jobs-'))
  const store = localDiskStore({ store: root })
  const python = join(root, 'python')
  await writeFile(python, `#!/bin/sh\nexec ${ml}/.venv/bin/python ${caseJob} "$@"\n`)
  await chmod(python, 0o700)
  const runner = () => localRunner({ python, mlDir: ml, env: { PATH: '/usr/bin:/bin', PYTHONPATH: ml }, warm: null })
  const jobs: JobFolder[] = []
  const processes = async (job: JobFolder): Promise<number[]> => {
    const started = Started.safeParse(JSON.parse(await readFile(join(job.path, 'started.json'), 'utf8').catch(() => 'null')))
    const mine = (await readdir('/proc')).filter((e) => /^\d+$/.test(e))
    const commands = await Promise.all(mine.map(async (pid) => ({ pid: Number(pid), command: await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '') })))
    return [...new Set([...commands.filter((c) => c.command.includes(job.path)).map((c) => c.pid), ...(started.success ? await groupMembers(started.data.pid) : [])])]
  }
  const kill = async (job: JobFolder): Promise<void> => {
    for (const pid of await processes(job)) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch (e) {
        if ((e as NodeJS.ErrnoException).code !== 'ESRCH') throw e
      }
    }
  }
  return {
    root,
    store,
    runner: runner(),
    successor: runner,
    submitFromDeadWorker: async (job) => {
      const worker = spawn('sh', ['-c', 'setsid "$0" -m cpt_ml case --request "$1/request.json" --result "$1/result.json" &', python, job.path], { cwd: ml, env: { PATH: '/usr/bin:/bin', PYTHONPATH: ml }, stdio: 'ignore' })
      await once(worker, 'exit')
    },
    newJob: async (does) => {
      const fingerprint = sha256(`${does} ${jobs.length}`)
      const job = jobFolder(root, fingerprint, 0, 1)
      const request: JobRequest = {
        format: 'cpt-job/1', stage: 'case', version: 1, fingerprint, range: 0, attempt: 1, token: 'token-1', roots: { store: root }, request: { do: does }, units: null, parents: [], placement: Placement.parse({}), leaseSeconds: 600,
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
      await rm(root, { recursive: true, maxRetries: 5 })
    },
  }
}

jobRunnerCases('processes of this machine', openBench)

describe('processes of this machine', () => {
  let bench: Awaited<ReturnType<typeof openBench>>
  let bystander: ChildProcess
  beforeEach(async () => {
    bench = await openBench()
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
    return { pid: bystander.pid!, startTicks: stat.split(')')[1]!.trim().split(' ')[19]!, bootId, host: 'here', ...over }
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

  test('a machine without the interpreter says so, and what to do', async () => {
    const runner = localRunner({ python: '/nowhere/python', mlDir: ml, env: {}, warm: null })
    const { job, request } = await bench.newJob('commit')
    await expect(runner.submit(job, request)).rejects.toThrow(JobNotStarted)
    await expect(runner.submit(job, request)).rejects.toThrow('run cpt doctor --fix')
  })

  test('a job sees the environment it was given and nothing of the worker’s', async () => {
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
    expect(log.trim().split('\n').map((l) => l.split('=')[0]).filter((n) => !['PWD', 'OLDPWD', 'SHLVL', '_'].includes(n!))).toEqual(['ONLY'])
  })
})
