import type { Parked } from '@cpt/contracts/cpt-run'
import { expect, test } from 'vitest'
import { choosePark } from './resolve.ts'

const parked = (stage: string, park: number): Parked => ({ stage, park, type: 'BadData', message: '', cause: '', suggest: '', actions: ['retry'], logTail: [], sinceMs: 0 })

test('the only open decision is meant when nothing is named', () => {
  expect(choosePark([parked('train', 2)], {})).toEqual({ stage: 'train', park: 2 })
})

test('with several open, a stage has to be named', () => {
  const open = [parked('train', 1), parked('filter', 1)]
  expect(() => choosePark(open, {})).toThrow(/2 stages wait/)
  expect(choosePark(open, { stage: 'filter' })).toEqual({ stage: 'filter', park: 1 })
})

test('a decision for a park that is over is not turned into one for the next', () => {
  expect(() => choosePark([parked('train', 2)], { park: 1 })).toThrow(/no stage waits/)
})
