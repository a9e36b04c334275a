import { makeHome, type Patch } from './home.ts'
import type { Violation } from './checker.ts'
import { WrongEnd } from './experiment.ts'
import { checkpointDamaged, jobKilled, killedInSave, oneAskerLeaves, staleAttempt, submittedTwice, syscallsWatched, terminated, workerKilled, type Scenario } from './scenarios.ts'
import { describeViolations, rowOf, type Session } from './session.ts'
import { startStand } from './stand.ts'
import { mergeRows, type Row } from './table.ts'

export interface PlantedBug {
  name: string
  patch: Patch
  scenario: Scenario
  leaseSeconds?: number
}

/** Ten bugs that a system like this one could have, and the fault in which each shows. */
export const plantedBugs: readonly PlantedBug[] = [
  {
    name: 'the position in the data is not restored',
    patch: { file: 'ml/cpt_ml/train.py', edits: [['    first = state.tokens // request.sequence_tokens\n', '    first = (state.tokens - (state.restarts[-1]["tokens"] if state.restarts else 0)) // request.sequence_tokens\n']] },
    scenario: jobKilled,
  },
  {
    name: 'a checkpoint record is created before its files are there',
    patch: {
      file: 'ml/cpt_ml/checkpoint_chain.py',
      edits: [
        ['        failpoint("checkpoint-written")\n', '        at, aside = self.attempt.folder / name, self.attempt.folder / f"later-{name}"\n        at.rename(aside)\n'],
        ['        failpoint("checkpoint-recorded")\n', '        failpoint("checkpoint-written")\n        aside.rename(at)\n'],
      ],
    },
    scenario: killedInSave,
  },
  {
    name: 'no fence: a stale attempt publishes',
    patch: { file: 'ml/cpt_ml/job.py', edits: [['            raise Superseded(f"{self.stage}: attempt {newer} exists, this one is {self.spec[\'attempt\']}")\n', '            self.log("fence-ignored")\n']] },
    scenario: staleAttempt,
  },
  {
    name: 'an end record is replaced',
    patch: { file: 'ml/cpt_ml/job.py', edits: [['            put_if_absent(self.folder / "end.json", ', '            replace_file(self.folder / "end.json", ']] },
    scenario: staleAttempt,
  },
  {
    name: 'the claim of the start is not exclusive',
    patch: { file: 'ml/cpt_ml/job.py', edits: [['        if not put_if_absent(self.folder / "started.json", ', '        if put_if_absent(self.folder / "started.json", '], ['            raise Superseded(f"{self.stage}: attempt {self.spec[\'attempt\']} was started already")\n', '            return\n']] },
    scenario: submittedTwice,
  },
  {
    name: 'digests of a checkpoint are not verified',
    patch: { file: 'ml/cpt_ml/checkpoint_chain.py', edits: [['        return None if found == file["sha256"] else ', '        return None if found != "missing" else ']] },
    scenario: checkpointDamaged,
  },
  {
    name: 'no fsync before a record gets its name',
    patch: { file: 'ml/cpt_ml/durable_files.py', edits: [['            f.flush()\n            os.fsync(f.fileno())\n', '            f.flush()\n']] },
    scenario: syscallsWatched,
  },
  {
    name: 'the lease is ignored',
    patch: { file: 'ml/cpt_ml/job.py', edits: [['                self._stop_reason = "orphaned"\n', '                seen = now\n']] },
    scenario: terminated,
    leaseSeconds: 8,
  },
  {
    name: 'no look-up before a submission',
    patch: { file: 'activities/src/watch-range.ts', edits: [['    const state = await runner.look(job)\n    switch (state.state) {', "    const state = submitted ? await runner.look(job) : ({ state: 'absent' } as Awaited<ReturnType<typeof runner.look>>)\n    switch (state.state) {"]] },
    scenario: workerKilled,
  },
  {
    name: 'a cancelled asker stops a job that another one wants',
    patch: { file: 'activities/src/claims.ts', edits: [['  const before = await counters()\n', '  const before = new Map<string, string>()\n']] },
    scenario: oneAskerLeaves,
  },
]

/** What the checker says to a scenario on the given code: the bug's, or healthy code where `patch` is null. */
export const tryBug = async (session: Session, bug: PlantedBug, patch: Patch | null): Promise<Violation[]> => {
  const { home, remove } = await makeHome(patch)
  try {
    const stand = await startStand(await session.prepared(), { home, ...(bug.leaseSeconds === undefined ? {} : { leaseSeconds: bug.leaseSeconds }) })
    try {
      return await bug.scenario(stand, session.seed)
    } catch (e) {
      // a run that parks or never ends is caught as well as one that ends wrongly; anything else is a fault of the harness
      if (!(e instanceof WrongEnd)) throw e
      return [{ invariant: 'I7', what: e.message.split('\n')[0] ?? '' }]
    } finally {
      await stand.stop()
    }
  } finally {
    await remove()
  }
}

const sideBySide = async <T>(width: number, items: readonly T[], work: (item: T) => Promise<void>): Promise<void> => {
  const left = [...items]
  await Promise.all(Array.from({ length: width }, async () => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) await work(next)
  }))
}

/** Every planted bug has to be caught; a row for each, so that one of them can be tried again by itself. */
export const bugsSection = async (session: Session): Promise<Row[]> => {
  const rows: Row[] = []
  await sideBySide(session.parallel, plantedBugs.filter((b) => session.named.test(b.name)).slice(0, session.count), async (bug) => {
    const began = performance.now()
    const found = await tryBug(session, bug, bug.patch)
    const by = [...new Set(found.map((v) => v.invariant))].sort().join(', ')
    session.say(`planted: ${bug.name}: ${found.length > 0 ? `caught by ${describeViolations(found).slice(0, 300)}` : 'NOT CAUGHT'}`)
    const row = rowOf(session, began, { section: 'bugs', measure: `planted bug caught: ${bug.name}`, ours: found.length > 0 ? 1 : 0, unit: `of 1${by === '' ? '' : `, by ${by}`}`, goal: '1', holds: found.length > 0, count: 1 })
    await mergeRows([row])
    rows.push(row)
  })
  return rows
}

/** Healthy code has to pass the faults of the planted bugs without a word. */
export const controlsSection = async (session: Session): Promise<Row[]> => {
  const rows: Row[] = []
  const controls = plantedBugs.filter((b, i, all) => all.findIndex((o) => o.scenario === b.scenario) === i && session.named.test(b.name)).slice(0, session.count)
  await sideBySide(session.parallel, controls, async (bug) => {
    const began = performance.now()
    const found = await tryBug(session, bug, null)
    session.say(`healthy code, the fault for "${bug.name}": ${found.length === 0 ? 'no violation' : describeViolations(found)}`)
    const row = rowOf(session, began, { section: 'controls', measure: `alarms of healthy code in the fault for: ${bug.name}`, ours: found.length, unit: 'violations', goal: '0', holds: found.length === 0, bound: found.length === 0 ? null : describeViolations(found).slice(0, 1000), count: 1 })
    await mergeRows([row])
    rows.push(row)
  })
  return rows
}
