import { readFile } from 'node:fs/promises'
import { failures } from '@cpt/contracts/failures'
import { EndRecord, Placement } from '@cpt/contracts/job'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { classifyFailure, failureClasses, rules, type FailureClass } from './classify-failure.ts'
import type { Ending } from './failure-evidence.ts'

const Case = z.strictObject({
  name: z.string(),
  label: z.string().refine((l): l is FailureClass => l in failureClasses, 'no such class'),
  runner: z.enum(['local', 'slurm']).default('local'),
  told: z.enum(['stop', 'stuck']).nullable().default(null),
  end: EndRecord.partial(),
  log: z.array(z.string()),
})
type Case = z.infer<typeof Case>

const cases = z.array(Case).parse(JSON.parse(await readFile(new URL('classify-failure.fixtures.json', import.meta.url), 'utf8')))

const endOf = (over: Case['end']): EndRecord =>
  EndRecord.parse({ format: 'cpt-end/1', endClass: 'failed', type: 'JobEnded', message: 'the process exited with code 1', exitCode: 1, signal: null, progressTokens: 0, logTail: [], wallSeconds: 1, ...over })
const endingOf = ({ end, log, told, runner }: Pick<Case, 'end' | 'log' | 'told' | 'runner'>): Ending => ({ end: endOf(end), log, told, placement: Placement.parse({ runner }) })
const classOf = (c: Case): FailureClass => classifyFailure(endingOf(c)).failureClass
const ending = (over: Partial<Case>): Ending => endingOf({ end: {}, log: [], told: null, runner: 'local', ...over })

/** The mean over classes of the harmonic mean of precision and recall. */
const macroF1 = (labelled: Case[]): { f1: number; confusion: string[] } => {
  const guesses = labelled.map((c) => ({ name: c.name, label: c.label, guess: classOf(c) }))
  const classes = [...new Set(guesses.flatMap((g) => [g.label, g.guess]))]
  const f1s = classes.map((k) => {
    const both = guesses.filter((g) => g.label === k && g.guess === k).length
    return (2 * both) / (guesses.filter((g) => g.label === k).length + guesses.filter((g) => g.guess === k).length)
  })
  return { f1: f1s.reduce((a, b) => a + b, 0) / f1s.length, confusion: guesses.filter((g) => g.label !== g.guess).map((g) => `${g.name}: is ${g.label}, taken for ${g.guess}`) }
}

describe('what a job ended of', () => {
  test('is told with a macro-F1 of at least 0.97 over 350 labelled endings of every class', () => {
    expect(cases.length).toBeGreaterThanOrEqual(350)
    expect(new Set(cases.map((c) => c.name)).size).toBe(cases.length)
    expect(new Set(cases.map((c) => c.label))).toEqual(new Set(Object.keys(failureClasses)))
    const { f1, confusion } = macroF1(cases)
    expect(f1, confusion.join('\n')).toBeGreaterThanOrEqual(0.97)
  })

  test('is unknown where no rule holds, and tried again within the budget', () => {
    expect(classifyFailure(ending({}))).toEqual({ failureClass: 'unknown', type: 'JobEnded', counts: true, next: 'retry', rule: 'nothing known was found' })
  })

  test('each rule decides some labelled ending: none is dead', () => {
    const spoke = new Set(cases.map((c) => classifyFailure(endingOf(c)).rule))
    expect(rules.map(([name]) => name).filter((name) => !spoke.has(name))).toEqual([])
  })

  test('preemption, time limit, node loss, stop and an expired lease do not count against the budget', () => {
    const free = cases.filter((c) => !classifyFailure({ ...endingOf(c), placement: Placement.parse({ runner: 'slurm' }) }).counts).map((c) => c.label)
    expect(new Set(free)).toEqual(new Set(['preempted', 'time-limit', 'node-lost', 'stopped', 'orphaned', 'superseded', 'gpu-memory', 'host-memory']))
  })

  test('a broken GPU counts here, where the next try meets it again, and not where a scheduler may pick another machine', () => {
    const broken = { end: { message: 'train: RuntimeError: CUDA error: uncorrectable ECC error encountered' } }
    expect(classifyFailure(ending({ ...broken, runner: 'local' }))).toMatchObject({ failureClass: 'node-lost', counts: true, next: 'retry' })
    expect(classifyFailure(ending({ ...broken, runner: 'slurm' }))).toMatchObject({ failureClass: 'node-lost', counts: false, next: 'retry' })
  })

  test('keeps the more exact type that a job gives itself when it parks', () => {
    expect(classifyFailure(ending({ end: { endClass: 'bad-data', type: 'TooMuchQuarantined' } }))).toMatchObject({ failureClass: 'bad-data', type: 'TooMuchQuarantined' })
    expect(classifyFailure(ending({ end: { endClass: 'bad-data', type: 'SomethingElse' } }))).toMatchObject({ type: 'BadData' })
  })

  test('an end without a commit record asks a person', () => {
    expect(classifyFailure(ending({ end: { endClass: 'done', type: 'Done', exitCode: 0 } }))).toMatchObject({ type: 'StoreCorrupt', next: 'park' })
  })
})

describe('the runbook', () => {
  test('has an entry for every failure type: what is shown, what it means, what to press', async () => {
    const runbook = await readFile(new URL('../../docs/runbook.md', import.meta.url), 'utf8')
    const entries = new Map(runbook.split(/^## /m).slice(1).map((e) => [e.slice(0, e.indexOf('\n')).trim(), e]))
    for (const type of Object.keys(failures)) {
      for (const part of ['*Shown:*', '*Means:*', '*Press:*']) expect(entries.get(type), `docs/runbook.md: ${type}: ${part}`).toContain(part)
    }
  })
})
