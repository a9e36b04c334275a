import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Beat } from '@cpt/contracts/job'
import { expect, test } from 'vitest'
import { keepPaces, readPaces, stallLimitMs, stallWatch } from './stall-limits.ts'

const beat = (phase: string, done: number): Beat => ({ phase, done, total: 100, unit: 'tokens', seq: 1 })

test('a phase that nothing is known of may stand still as long as the placement says', () => {
  expect(stallLimitMs(undefined, 900_000)).toBe(900_000)
  expect(stallLimitMs({ advances: 4, longestMs: 10 }, 900_000)).toBe(900_000)
})

test('a phase that is known has twenty times its longest pause, at least two minutes, never more than the placement says', () => {
  expect(stallLimitMs({ advances: 5, longestMs: 10 }, 900_000)).toBe(120_000)
  expect(stallLimitMs({ advances: 50, longestMs: 10_000 }, 900_000)).toBe(200_000)
  expect(stallLimitMs({ advances: 50, longestMs: 100_000 }, 900_000)).toBe(900_000)
  expect(stallLimitMs({ advances: 50, longestMs: 10 }, 6_000)).toBe(6_000)
})

test('phases have limits of their own: quick steps do not make a slow save or load look stuck', () => {
  const watch = stallWatch(900, {}, 0)
  let now = 0
  for (let step = 1; step <= 10; step++) expect(watch.look(beat('train', step), (now += 1_000))).toBeNull()
  expect(watch.look(beat('save', 10), (now += 1_000))).toBeNull()
  expect(watch.look(beat('save', 10), now + 800_000)).toBeNull()
  expect(watch.look(beat('save', 10), now + 901_000)).toBe('no progress in phase save for 901 s, limit 900 s')
  expect(watch.look(beat('train', 10), now + 902_000)).toBeNull()
  expect(watch.look(beat('train', 10), now + 902_000 + 119_000)).toBeNull()
  expect(watch.look(beat('train', 10), now + 902_000 + 121_000)).toBe('no progress in phase train for 121 s, limit 120 s')
})

test('a phase that was found to stand still has all the time of the placement in the next attempt', () => {
  const first = stallWatch(900, {}, 0)
  for (let step = 1; step <= 9; step++) first.look(beat('train', step), step * 1_000)
  expect(first.look(beat('train', 9), 9_000 + 121_000)).toContain('limit 120 s')
  const next = stallWatch(900, first.paces, 0)
  expect(next.look(beat('train', 1), 500)).toBeNull()
  expect(next.look(beat('train', 1), 890_000)).toBeNull()
  expect(next.look(beat('train', 1), 901_500)).toContain('limit 900 s')
})

test('a job that waits for others, or for a scheduler that does not answer, is not to blame', () => {
  const watch = stallWatch(10, {}, 0)
  watch.look(beat('train', 1), 1_000)
  watch.excuse(60_000)
  expect(watch.look(beat('train', 1), 65_000)).toBeNull()
  expect(watch.look(beat('train', 1), 71_000)).not.toBeNull()
})

test('what was learnt of an attempt is there for the next one, and a damaged file is as none', async () => {
  const path = await mkdtemp(join(tmpdir(), 'cpt-paces-'))
  const job = { path, fingerprint: 'f', range: 0, attempt: 1 }
  expect(await readPaces(job)).toEqual({})
  const watch = stallWatch(900, {}, 0)
  for (let step = 1; step <= 9; step++) watch.look(beat('train', step), step * 3_000)
  await keepPaces(job, watch.paces)
  const next = stallWatch(900, await readPaces(job), 0)
  expect(next.paces['train']).toEqual({ advances: 8, longestMs: 3_000 })
  expect(next.look(beat('train', 1), 500)).toBeNull()
  expect(next.look(beat('train', 1), 121_000)).toContain('limit 120 s')
  await writeFile(join(path, 'paces.json'), '{"train": {"adv')
  expect(await readPaces(job)).toEqual({})
  await rm(path, { recursive: true })
})
