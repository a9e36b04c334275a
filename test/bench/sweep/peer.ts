import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Config } from '@cpt/activities/config'
import { marked, signalGroup, signalProcess } from '@cpt/activities/job-runner/process'
import { StratumLoss } from '@cpt/contracts/evaluate-perplexity'
import { Beat } from '@cpt/contracts/job'
import { TrainResult } from '@cpt/contracts/train'
import { z } from 'zod'
import type { TrialJobs } from './ours.ts'
import type { Loss, SweepRun } from './sweep-run.ts'

/** What drives the training function, by the file that does it. */
export type PeerName = 'optuna' | 'ray'
export const titleOf: Record<PeerName, string> = { optuna: 'Optuna', ray: 'Ray Tune' }

export interface PeerCase {
  name: PeerName
  python: string
  config: Config
  /** A store with the prepared corpus. */
  prepared: string
  trials: TrialJobs[]
  /** Whether its processes get the allocator settings of our jobs, which its documentation knows nothing of. */
  ourAllocator?: boolean
  /** A folder of its own, to be removed by whoever made it. */
  work: string
}

/** train_trial.py writes these lines; `at` and `began` are seconds since the epoch. */
const Line = z.discriminatedUnion('event', [
  z.object({ event: z.literal('finish'), at: z.number() }),
  z.object({ event: z.literal('start'), at: z.number(), index: z.int(), attempt: z.int() }),
  z.object({ event: z.literal('job'), at: z.number(), index: z.int(), stage: z.string(), began: z.number() }),
  z.object({ event: z.literal('end'), at: z.number(), index: z.int(), weightsSha256: z.string(), restarts: TrainResult.shape.restarts, strata: z.array(StratumLoss) }),
])
type Line = z.infer<typeof Line>
type Event<E extends Line['event']> = Extract<Line, { event: E }>
const only = <E extends Line['event']>(lines: readonly Line[], event: E): Event<E>[] => lines.filter((l): l is Event<E> => l.event === event)

/** One sweep; its clock runs from the first trial's first act, so that no import and no start of Ray counts, to the last one's being told. `commandSeconds` is all of it. */
export const peerOnce = async (peer: PeerCase): Promise<{ run: SweepRun; commandSeconds: number; begun: number }> => {
  await setUp(peer)
  const before = performance.now()
  const driver = await start(peer, 1)
  await driver.ended
  const commandSeconds = (performance.now() - before) / 1000
  const lines = await linesOf(peer)
  return { run: runOf(peer, lines, null), commandSeconds, begun: only(lines, 'start').length }
}

/** The same with the driver and all it started ended by SIGKILL half-way, and the very same command again. */
export const peerKilled = async (peer: PeerCase, parallel: number): Promise<{ run: SweepRun; loss: Loss }> => {
  await setUp(peer)
  const numTrials = peer.trials.length
  const driver = await start(peer, 1)
  const over = new AbortController()
  void driver.ended.catch(() => undefined).finally(() => over.abort())
  for (;;) {
    const done = new Set(only(await linesOf(peer), 'end').map((l) => l.index)).size
    if (done >= numTrials / 2 && done < numTrials && (await inTraining(peer)).length >= Math.min(parallel, numTrials - done)) break
    if (done === numTrials || over.signal.aborted) throw new Error(`${peer.name}: over after ${done} trials, before it could be killed; its last words:\n${await lastWords(peer)}`)
    await sleep(200)
  }
  await driver.kill()
  const caught = await inTraining(peer)
  const before = await linesOf(peer)
  const again = await start(peer, 2)
  await again.ended
  const endedMs = Date.now()
  const lines = await linesOf(peer)
  const run = runOf(peer, lines, endedMs)
  const started = only(lines.slice(before.length), 'start')
  const wasOver = new Set(only(before, 'end').map((l) => l.index))
  const lost = caught.map(({ index, tokens }) => {
    const from = only(lines, 'end').findLast((l) => l.index === index)?.restarts.at(-1)?.tokens ?? 0
    return { tokens: Math.max(0, tokens - from), fromZero: from === 0 }
  })
  return {
    run,
    loss: {
      driver: titleOf[peer.name], how: 'the driver and all it started', wallSeconds: (endedMs - run.beganMs) / 1000,
      trialsAgain: started.filter((l) => wasOver.has(l.index)).length, trialsFromZero: lost.filter((l) => l.fromZero).length, tokensTwice: lost.map((l) => l.tokens),
    },
  }
}

const setUp = async ({ work, prepared, trials, config }: PeerCase): Promise<void> => {
  await mkdir(work, { recursive: true })
  await cp(prepared, join(work, 'prepared'), { recursive: true })
  await writeFile(join(work, 'trials.json'), JSON.stringify({ roots: { ...config.roots }, trials }))
}

interface Driver {
  /** Resolves when it has ended well and nothing of it is left; rejects when it failed. */
  ended: Promise<void>
  kill: () => Promise<void>
}

const running = new Set<Driver>()

/** Ends the drivers that still run, and all that they started. */
export const stopPeers = async (): Promise<void> => {
  await Promise.all([...running].map((driver) => driver.kill()))
}

const start = async ({ name, python, config, ourAllocator = false, work }: PeerCase, startNumber: number): Promise<Driver> => {
  const file = new URL(`${name}_driver.py`, import.meta.url).pathname
  const mark = `CPT_BENCH=${work}`
  const log = await open(join(work, 'output.log'), 'a')
  const { GLIBC_TUNABLES = '', ...jobEnv } = config.jobEnv
  const child = spawn(python, [file, work], {
    cwd: work, detached: true, stdio: ['ignore', log.fd, log.fd],
    env: {
      ...jobEnv, ...(ourAllocator ? { GLIBC_TUNABLES } : {}), CPT_BENCH: work, CPT_BENCH_START: String(startNumber), TMPDIR: work, PYTHONPATH: new URL('.', import.meta.url).pathname, PYTHONDONTWRITEBYTECODE: '1',
      OMP_NUM_THREADS: '1', OMP_WAIT_POLICY: 'passive',
      RAY_worker_niceness: '0', RAY_AUTH_MODE: 'disabled', RAY_USAGE_STATS_ENABLED: '0', RAY_CHDIR_TO_TRIAL_DIR: '0', RAY_AIR_NEW_OUTPUT: '0', TUNE_DISABLE_AUTO_CALLBACK_LOGGERS: '1', TUNE_GLOBAL_CHECKPOINT_S: '1',
    },
  })
  const gone = once(child, 'exit').then(async ([code]) => {
    running.delete(driver)
    await log.close()
    return code as number | null
  })
  const rest = async (): Promise<void> => {
    for (let left = await marked(mark); left.length > 0; left = await marked(mark)) {
      for (const pid of left) signalProcess(pid, 'SIGKILL')
      await sleep(50)
    }
  }
  const ended = gone.then(async (code) => {
    await rest()
    if (code !== 0) throw new Error(`${file} ended with ${code === null ? 'a signal' : `exit code ${code}`}; its last words:\n${await lastWords({ work })}`)
  })
  const driver: Driver = {
    ended,
    kill: async () => {
      ended.catch(() => undefined)
      if (child.pid !== undefined) signalGroup(child.pid, 'SIGKILL')
      await rest()
      await gone
    },
  }
  running.add(driver)
  return driver
}

const lastWords = async ({ work }: Pick<PeerCase, 'work'>): Promise<string> => (await readFile(join(work, 'output.log'), 'utf8')).slice(-4000)

const linesOf = async ({ work }: PeerCase): Promise<Line[]> => {
  const text = await readFile(join(work, 'log.jsonl'), 'utf8').catch(() => '')
  return text.split('\n').filter((l) => l !== '').map((l) => Line.parse(JSON.parse(l)))
}

/** Trials that have begun, not ended, and saved a checkpoint of their training; `tokens` as their last beat says. */
const inTraining = async (peer: PeerCase): Promise<{ index: number; tokens: number }[]> => {
  const lines = await linesOf(peer)
  const open = only(lines, 'start').filter((s) => !lines.some((l) => l.event === 'end' && l.index === s.index))
  const beats = await Promise.all(open.map(async ({ index, attempt }) => {
    const text = await readFile(join(peer.work, 'jobs', String(index), `train-${attempt}`, 'beat.json'), 'utf8').catch(() => 'null')
    const beat = Beat.safeParse(JSON.parse(text)).data
    return beat?.phase === 'train' && (beat.lastCommitTokens ?? 0) > 0 ? [{ index, tokens: beat.tokens ?? 0 }] : []
  }))
  return beats.flat()
}

const runOf = ({ name, trials, work }: PeerCase, lines: readonly Line[], endedMs: number | null): SweepRun => {
  const ends = new Map(only(lines, 'end').map((l) => [l.index, l]))
  const missing = trials.filter((t) => !ends.has(t.index))
  if (missing.length > 0) throw new Error(`${name}: no result of trials ${missing.map((t) => t.index).join(', ')}; see ${join(work, 'output.log')}`)
  const lastEnd = Math.max(...[...ends.values()].map((l) => l.at))
  const finish = only(lines, 'finish').find((l) => l.at >= lastEnd)
  const begin = only(lines, 'start')[0]
  if (begin === undefined || finish === undefined) throw new Error(`${name}: its log has no start of a trial, or no finish`)
  return {
    driver: titleOf[name], beganMs: begin.at * 1000, endedMs: endedMs ?? finish.at * 1000,
    spans: only(lines, 'job').map((l) => ({ index: l.index, stage: l.stage, fromMs: l.began * 1000, toMs: l.at * 1000 })),
    trials: new Map([...ends].map(([index, l]) => [index, { weightsSha256: l.weightsSha256, strata: l.strata }])),
  }
}
