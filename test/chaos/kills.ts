import type { Failpoint } from '@cpt/activities/failpoint'
import { commitsOf } from '../harness/store.ts'
import { experiment, type Outcome } from './experiment.ts'
import { fired, killJob, pause, randomKills, recoveryMs, total, type Target } from './faults.ts'
import { seeded } from './seeded.ts'
import { describeViolations, onStands, rowOf, type Session, type Task } from './session.ts'
import { disturbed, shortRun, type Runner, type Stand } from './stand.ts'
import { boundOfZero, quantile, type Row } from './table.ts'

type JobFailpoint = 'job-started' | 'checkpoint-written' | 'checkpoint-recorded' | 'commit-written' | 'committed' | 'end-written'

/** Every named boundary, and up to which passing of it a seed may choose to kill. */
export const failpoints: readonly (readonly [Failpoint | JobFailpoint, number])[] = [
  ['attempt-claimed', 2], ['request-written', 2], ['job-submitted', 2], ['end-seen', 2], ['merge-written', 1], ['merge-committed', 1],
  ['job-started', 2], ['checkpoint-written', 8], ['checkpoint-recorded', 8], ['commit-written', 2], ['committed', 2], ['end-written', 2],
]
const mapStages = ['tokenize']

/** A kill at one named boundary; returns the kills that happened (none where the run never passed there). */
export const killAt = async (stand: Stand, failpoint: string, seed: number, passing?: number): Promise<Outcome & { kills: number }> => {
  const most = failpoints.find(([name]) => name === failpoint)?.[1] ?? 1
  const nth = passing ?? 1 + Math.floor(seeded(seed).between(0, most))
  let kills = 0
  const outcome = await experiment(stand, {
    name: `failpoint-${failpoint}`, seed,
    again: failpoint.startsWith('merge-') ? mapStages : [],
    disturb: async (_run, log, over) => {
      await stand.arm(failpoint, nth)
      kills = (await fired(stand, log, failpoint, over)) ? 1 : 0
    },
  })
  return { ...outcome, kills }
}

/** Several kills of one run at moments that the seed chooses. */
export const killAtRandom = async (stand: Stand, seed: number, most: number, targets: readonly Target[]): Promise<Outcome & { kills: number; of: Readonly<Partial<Record<Target, number>>> }> => {
  let of: Partial<Record<Target, number>> = {}
  let kills = 0
  const outcome = await experiment(stand, {
    name: `kills-${targets.join('-')}`, seed,
    disturb: async (_run, log, over) => {
      const done = await randomKills(stand, log, seeded(seed), most, targets, over)
      log.add('kills', done)
      of = done
      kills = total(done)
    },
  })
  return { ...outcome, kills, of }
}

const killsPerRun = { local: 8, slurm: 5 } as const
const targetSets: Record<Runner, readonly (readonly Target[])[]> = {
  local: [['job'], ['job', 'worker'], ['job', 'server'], ['job', 'worker', 'server']],
  slurm: [['job'], ['job', 'worker'], ['job', 'slurmctld'], ['job', 'slurmd'], ['job', 'worker', 'server', 'slurmctld', 'slurmd']],
}

/** Kills −9 of jobs, workers and the server, at every named boundary and at random, until `session.count` of them are done. */
export const killsSection = async (session: Session, runner: Runner): Promise<Row[]> => {
  const began = performance.now()
  const found = { kills: 0, runs: 0, failed: 0, unplanned: [] as string[] }
  const note = (what: string, outcome: Outcome & { kills: number }): void => {
    found.kills += outcome.kills
    found.runs += 1
    if (outcome.violations.length > 0) found.unplanned.push(`${what}: ${describeViolations(outcome.violations)} (${outcome.log.path})`)
    session.say(`${runner} ${what}: ${outcome.kills} kills in ${outcome.seconds.toFixed(0)} s, ${found.kills} of ${session.count}${outcome.violations.length === 0 ? '' : `; ${describeViolations(outcome.violations)}`}`)
  }
  const tasks = function* (): Generator<Task> {
    // a short session draws its boundaries by seed, a long one visits all of them
    let seed = session.seed
    const rng = seeded(session.seed)
    const named = session.count >= 2 * failpoints.length ? failpoints.map(([name]) => name) : [rng.pick(failpoints)[0], rng.pick(failpoints)[0]]
    for (const name of named) {
      const mine = seed++
      yield async (stand) => note(name, await killAt(stand, name, mine))
    }
    while (found.kills < session.count) {
      const mine = seed++
      const targets: readonly Target[] = rng.pick(targetSets[runner])
      yield async (stand) => note(`random ${targets.join('/')} (seed ${mine})`, await killAtRandom(stand, mine, killsPerRun[runner], targets))
    }
  }
  await onStands(session, runner, {}, tasks(), (e) => {
    found.runs += 1
    found.unplanned.push(e instanceof Error ? e.message : String(e))
    session.say(`${runner} FAILED: ${e instanceof Error ? e.message : String(e)}`)
  })
  return [rowOf(session, began, {
    section: 'kills', measure: `kills -9 over ${runner} runs that left a trace (tokens, weights, curve, orphans, manual steps: I1 to I9)`,
    ours: found.unplanned.length, unit: `of ${found.runs} runs with ${found.kills} kills (${session.count} planned)`, goal: '0', holds: found.unplanned.length === 0 && found.kills >= session.count,
    bound: found.unplanned.length === 0 ? boundOfZero(found.kills) : found.unplanned.join(' | ').slice(0, 2000), count: found.kills,
  })]
}

/** One kill of the server at a random moment of each run. */
export const serverSection = async (session: Session, runner: Runner): Promise<Row[]> => {
  const began = performance.now()
  let [finished, runs] = [0, 0]
  const unplanned: string[] = []
  const weights = new Set<string>()
  const tasks = function* (): Generator<Task> {
    for (let i = 0; i < session.count; i++) {
      const seed = session.seed + 10_000 + i
      yield async (stand) => {
        runs += 1
        const rng = seeded(seed)
        const outcome = await experiment(stand, {
          name: 'server', seed,
          input: shortRun(runner),
          again: disturbed,
          disturb: async (_run, log, over) => {
            await pause(rng.between(0, 9_000), over)
            await stand.system.killServer()
            log.add('kill', { target: 'server', afterTheEnd: over.aborted })
            await pause(rng.between(0, 1_500), new AbortController().signal)
            await stand.system.startServer()
            log.add('back', { target: 'server' })
          },
        })
        for (const r of await commitsOf(stand.system.storeDir)) if (r.stage === 'train') weights.add((r.result as { weightsSha256: string }).weightsSha256)
        if (outcome.violations.length === 0) finished += 1
        else unplanned.push(`seed ${seed}: ${describeViolations(outcome.violations)}`)
        session.say(`${runner} server kill ${runs} of ${session.count}: ${outcome.seconds.toFixed(0)} s${outcome.violations.length === 0 ? '' : `; ${describeViolations(outcome.violations)}`}`)
      }
    }
  }
  await onStands(session, runner, {}, tasks(), (e) => {
    unplanned.push(e instanceof Error ? e.message : String(e))
    session.say(`${runner} FAILED: ${e instanceof Error ? e.message : String(e)}`)
  })
  return [rowOf(session, began, {
    section: 'server', measure: `runs on ${runner} that finish after a server kill -9 at a random moment, no worker restart, no manual step`,
    ours: finished, unit: `of ${runs} runs; ${weights.size} different models in all`, goal: `${session.count} of ${session.count}, one model`, holds: finished === runs && runs === session.count && weights.size === 1,
    bound: finished === runs ? boundOfZero(runs) : unplanned.join(' | ').slice(0, 2000), count: runs,
  })]
}

const recoveryGoalSeconds = { local: 2, slurm: 10 } as const

/** From the death of a training job to the next attempt's start, worker and server being well. */
export const recoverySection = async (session: Session, runner: Runner): Promise<Row[]> => {
  const began = performance.now()
  const seconds: number[] = []
  const unplanned: string[] = []
  const tasks = function* (): Generator<Task> {
    for (let seed = session.seed + 20_000; seconds.length < session.count; seed++) {
      yield async (stand) => {
        const rng = seeded(seed)
        const outcome = await experiment(stand, {
          name: 'recovery', seed,
          disturb: async (_run, log, over) => {
            const killed = new Map<string, string>()
            for (let i = 0; i < 10 && !over.aborted; i++) {
              const kill = await killJob(stand, log, killed, rng.between(0, 300), over)
              const recovery = kill === null || kill.job.fingerprint !== stand.reference.train ? null : await recoveryMs(stand, kill, over)
              if (recovery === null) continue
              log.add('recovered', recovery)
              seconds.push((runner === 'local' ? recovery.startedMs : recovery.claimedMs) / 1000)
            }
          },
        })
        if (outcome.violations.length > 0) unplanned.push(describeViolations(outcome.violations))
        session.say(`${runner} recovery: ${seconds.length} of ${session.count}, p50 ${quantile(seconds, 0.5).toFixed(2)} s, p95 ${quantile(seconds, 0.95).toFixed(2)} s${outcome.violations.length === 0 ? '' : `; ${describeViolations(outcome.violations)}`}`)
      }
    }
  }
  await onStands(session, runner, {}, tasks(), (e) => {
    unplanned.push(e instanceof Error ? e.message : String(e))
    session.say(`${runner} FAILED: ${e instanceof Error ? e.message : String(e)}`)
  })
  const goal = recoveryGoalSeconds[runner]
  return ([['p50', 0.5], ['p95', 0.95]] as const).map(([name, q]) => rowOf(session, began, {
    section: 'recovery', measure: `from a job's death to the next attempt's ${runner === 'local' ? 'start' : 'submission'}, ${runner}, ${name}`,
    ours: Number(quantile(seconds, q).toFixed(2)), unit: 's', ratio: Number((quantile(seconds, q) / goal).toFixed(3)), goal: `p95 <= ${goal} s`,
    holds: quantile(seconds, q) <= goal && unplanned.length === 0 && seconds.length >= session.count, bound: unplanned.length === 0 ? null : unplanned.join(' | ').slice(0, 2000), count: seconds.length,
  }))
}
