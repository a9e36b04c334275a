import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { SweepVerdict, type TrialOutcome, type TrialPoint } from '@cpt/contracts/sweep'
import { chooseCell } from './choose.ts'
import { trialsOf } from './grid.ts'

const base = { added: { perToken: 4.5, perByte: 1.5 }, retained: { perToken: 4, perByte: 1 } }
const settings = { retentionToleranceNats: 0.05, z: 1.64 }
const grid = { almr: [0.2, 0.4, 0.6], peakLrs: [1e-4, 2e-4, 4e-4], seeds: [1, 2] }
const artifact = { uri: 'store:data/x', sha256: 'a'.repeat(64), bytes: 1 }

/** Trials of a grid whose losses are given by a function of the point; null is a trial without a result. */
const trials = (losses: (p: TrialPoint) => [added: number, retained: number] | null, over = grid): TrialOutcome[] =>
  trialsOf(over).map((point, index) => {
    const at = losses(point)
    return {
      index, point, status: at === null ? 'failed' : 'done', workflowId: `sweep/x/trial-${index}`,
      measurement: at === null ? null : { added: { perToken: at[0], perByte: at[0] / 3 }, retained: { perToken: at[1], perByte: at[1] / 4 }, tokens: 1000, gpuSeconds: 2, model: artifact, training: 'b'.repeat(64) },
    }
  })
/** More of the added language and a higher rate learn more and forget more; seeds differ by a little. */
const smooth = ({ almr, peakLr, seed }: TrialPoint): [number, number] => [4.5 - almr - peakLr * 500 + (seed === 1 ? 0.001 : -0.001), 4 + almr * peakLr * 400]
const chosenOf = (verdict: SweepVerdict) => (verdict.chosen === null ? null : [verdict.chosen.almr, verdict.chosen.peakLr])

test('of the cells that keep what was known the one that learned most is chosen', () => {
  const verdict = chooseCell(trials(smooth), base, settings)
  // 0.6 at 2e-4 costs 0.048; 0.4 at 4e-4 costs 0.064, 0.6 at 4e-4 0.096
  expect(chosenOf(verdict)).toEqual([0.6, 2e-4])
  expect(verdict.cells.filter((c) => c.state === 'infeasible').map((c) => [c.almr, c.peakLr])).toEqual([[0.4, 4e-4], [0.6, 4e-4]])
  expect(SweepVerdict.parse(verdict)).toEqual(verdict)
})

test('a retained loss of exactly what is allowed is feasible, and the least more is not', () => {
  const allowed = base.retained.perToken + settings.retentionToleranceNats
  const [one, other] = [allowed, allowed + 1e-9].map((retained) => chooseCell(trials(() => [4, retained], { almr: [0.2], peakLrs: [1e-4], seeds: [1] }), base, settings))
  expect(chosenOf(one!)).toEqual([0.2, 1e-4])
  expect(chosenOf(other!)).toBeNull()
})

test('the control is never chosen, and is named where it is as good', () => {
  const verdict = chooseCell(trials(({ almr }) => [almr === 0 ? 3 : 3.5, 4]), base, settings)
  expect(verdict.chosen?.almr).toBeGreaterThan(0)
  expect(verdict.words.join(' ')).toContain('this mixture gained nothing')
})

test('where nothing is feasible nothing is chosen, and the gentlest is named with what it cost', () => {
  const verdict = chooseCell(trials(({ almr, peakLr }) => [3, almr === 0 ? 4 : 4.06 + peakLr]), base, settings)
  expect(verdict).toMatchObject({ chosen: null, ties: [], edges: [] })
  expect(verdict.words[0]).toBe('Nothing is feasible, so nothing was chosen. The gentlest was ALMR 0.2 at peak learning rate 0.0001: retained 4.0601 nats/token, +0.0601 against the base, allowed +0.05. Try a smaller learning rate or ALMR.')
})

test('a cell that lacks a seed is no candidate; that it looks better is said, and every gap is listed', () => {
  const verdict = chooseCell(trials((p) => (p.almr === 0.6 && p.peakLr === 2e-4 && p.seed === 2 ? null : smooth(p))), base, settings)
  expect(chosenOf(verdict)).not.toEqual([0.6, 2e-4])
  expect(verdict.missing).toEqual([{ index: 21, point: { almr: 0.6, peakLr: 2e-4, seed: 2 }, status: 'failed' }])
  expect(verdict.words.join('\n')).toMatch(/Better so far, but not complete: ALMR 0\.6 at peak learning rate 0\.0002[^]*1 of 24 trials have no result: trial 21/)
})

describe('an optimum at the edge of the grid is said first after the choice', () => {
  const at = (almr: number, peakLr: number) => chooseCell(trials((p) => [Math.abs(p.almr - almr) + Math.abs(p.peakLr - peakLr) * 1000, 4]), base, settings)
  test.each([
    [0.4, 2e-4, []],
    [0.6, 2e-4, ['largest-almr']],
    [0.2, 2e-4, ['smallest-almr']],
    [0.4, 4e-4, ['largest-lr']],
    [0.6, 1e-4, ['largest-almr', 'smallest-lr']],
  ] as const)('ALMR %d at %d', (almr, peakLr, edges) => {
    const verdict = at(almr, peakLr)
    expect(chosenOf(verdict)).toEqual([almr, peakLr])
    expect(verdict.edges).toEqual(edges)
    expect(verdict.words[1]?.startsWith('AT THE EDGE OF THE GRID') ?? false).toBe(edges.length > 0)
  })

  test('a side with one value is both its ends', () => {
    expect(chooseCell(trials(() => [3, 4], { almr: [0.3], peakLrs: [1e-4], seeds: [1] }), base, settings).edges).toEqual(['smallest-almr', 'largest-almr', 'smallest-lr', 'largest-lr'])
  })
})

describe('ties', () => {
  // seeds differ by ± d in every cell, so the pooled deviation is d·√2, and a difference of two means has the error d·√2
  const noisy = (d: number) => chooseCell(trials(({ almr, peakLr, seed }) => [4 - (almr === 0.4 && peakLr === 2e-4 ? 0.1 : 0) + (seed === 1 ? d : -d), 4]), base, settings)

  test('are the cells within z standard errors of the best, by the variance pooled over all cells', () => {
    expect(noisy(0.1).standardDeviation.added).toBeCloseTo(0.1 * Math.SQRT2, 12)
    expect(noisy(0.1).ties).toHaveLength(8)
    expect(noisy(0.04).ties).toHaveLength(0)
  })
  test('cannot be told from one seed, and that is said', () => {
    const verdict = chooseCell(trials(smooth, { ...grid, seeds: [1] }), base, settings)
    expect(verdict.standardDeviation).toEqual({ added: null, retained: null })
    expect(verdict.ties).toEqual([])
    expect(verdict.words.join(' ')).toContain('Every cell has one seed')
  })
  test('exactly equal cells go to the one that forgets less, then to the gentler one', () => {
    expect(chosenOf(chooseCell(trials(({ peakLr }) => [3, 4 + (peakLr === 2e-4 ? 0 : 0.01)]), base, settings))).toEqual([0.2, 2e-4])
    expect(chosenOf(chooseCell(trials(() => [3, 4]), base, settings))).toEqual([0.2, 1e-4])
  })
})

test('that a cell is feasible only by luck of its seeds is said', () => {
  const verdict = chooseCell(trials(({ seed }) => [3, 4.045 + (seed === 1 ? 0.02 : -0.02)]), base, settings)
  expect(verdict.chosen).not.toBeNull()
  expect(verdict.words.join(' ')).toContain('That it is feasible is not shown')
})

const loss = fc.double({ min: 0.5, max: 10, noNaN: true })
const outcomes = fc.array(fc.tuple(loss, loss, fc.boolean()), { minLength: 24, maxLength: 24 }).map((all) => {
  let i = 0
  return trials(() => {
    const [added, retained, isThere] = all[i++]!
    return isThere ? [added, retained] : null
  })
})

test('the choice does not depend on the order in which trials ended', () => {
  fc.assert(fc.property(outcomes, fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })), (all, dice) => {
    const shuffled = all.map((t) => [dice.next().value as number, t] as const).sort((a, b) => a[0] - b[0]).map(([, t]) => t)
    expect(chooseCell(shuffled, base, settings)).toEqual(chooseCell(all, base, settings))
  }))
})

test('whatever was measured, the chosen cell is complete, within what is allowed, no control, and no feasible one is better', () => {
  fc.assert(fc.property(outcomes, (all) => {
    const { chosen, cells } = chooseCell(all, base, settings)
    const candidates = cells.filter((c) => c.almr > 0 && c.measured === c.seeds && (c.retained?.perToken ?? Infinity) <= base.retained.perToken + settings.retentionToleranceNats)
    expect(chosen === null).toBe(candidates.length === 0)
    for (const c of candidates) expect(chosen!.added.perToken).toBeLessThanOrEqual(c.added!.perToken)
    if (chosen !== null) expect(candidates.some((c) => c.almr === chosen.almr && c.peakLr === chosen.peakLr)).toBe(true)
  }))
})

test('allowing more never chooses a cell that learned less', () => {
  fc.assert(fc.property(outcomes, fc.double({ min: 0, max: 3, noNaN: true }), (all, more) => {
    const [strict, lax] = [chooseCell(all, base, settings), chooseCell(all, base, { ...settings, retentionToleranceNats: settings.retentionToleranceNats + more })]
    if (strict.chosen !== null) expect(lax.chosen!.added.perToken).toBeLessThanOrEqual(strict.chosen.added.perToken)
  }))
})
