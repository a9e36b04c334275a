import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { localDiskStore } from './artifact-store/local-disk.ts'
import { AnswerLost, losingAnswers, parseLostAnswers } from './lost-answers.ts'

let root: string
beforeEach(async () => { root = await mkdtemp(join(tmpdir(), 'cpt-lost-')) })
afterEach(() => rm(root, { recursive: true, force: true }))

test('a call whose answer is lost was performed all the same', async () => {
  const store = localDiskStore({ store: root })
  const lost: string[] = []
  const losing = losingAnswers(store, 'store', { seed: 1, every: 1 }, (call) => lost.push(call))
  await expect(losing.putIfAbsent('claims/a.json', Buffer.from('1'))).rejects.toBeInstanceOf(AnswerLost)
  expect(Buffer.from((await store.get('claims/a.json'))!).toString()).toBe('1')
  expect(lost).toEqual(['store.putIfAbsent'])
  expect(losing.place).toBe(root)
})

test('a seed repeats which answers are lost, about one in so many', async () => {
  const lostBy = async (seed: number): Promise<number[]> => {
    const losing = losingAnswers(localDiskStore({ store: root }), 'store', { seed, every: 10 }, () => undefined)
    const lost: number[] = []
    for (let i = 0; i < 500; i++) await losing.get('nothing').catch(() => lost.push(i))
    return lost
  }
  const first = await lostBy(7)
  expect(await lostBy(7)).toEqual(first)
  expect(await lostBy(8)).not.toEqual(first)
  expect(first.length).toBeGreaterThan(25)
  expect(first.length).toBeLessThan(90)
})

test('answers of what an adapter hands out are lost too', async () => {
  let sent = 0
  const client = { workflow: { getHandle: () => ({ signal: () => Promise.resolve((sent += 1)) }) } }
  const losing = losingAnswers(client, 'client', { seed: 3, every: 1 }, () => undefined)
  await expect(losing.workflow.getHandle().signal()).rejects.toThrow('client.signal: timed out')
  expect(sent).toBe(1)
})

test('a setting that is none is refused by name', () => {
  expect(parseLostAnswers('7:20')).toEqual({ seed: 7, every: 20 })
  for (const text of ['', '7', 'a:b', '7:0', '7:20x']) expect(() => parseLostAnswers(text)).toThrow('CPT_LOST_ANSWERS: expected seed:every')
})
