import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { JobUnit } from '@cpt/contracts/job'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { localDiskStore } from './artifact-store/local-disk.ts'
import { claimAttempt, jobFolder, renewLease } from './claims.ts'
import { sha256 } from './identity.ts'
import { shareUnits } from './unit-owners.ts'

let root: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'cpt-units-'))
})
afterEach(() => rm(root, { recursive: true, force: true }))

const deps = () => ({ store: localDiskStore({ store: root }), workDir: root })
const unit = (index: number, name: string): JobUnit => ({ index, fingerprint: sha256(name), inputs: {} })
const [a, b, c] = [unit(0, 'a'), unit(1, 'b'), unit(2, 'c')]
const request = (name: string) => ({ fingerprint: sha256(name), range: 0 })

/** A job of a request whose lease is renewed until the returned function is called. */
const atWork = async (name: string): Promise<() => Promise<void>> => {
  const { fingerprint, range } = request(name)
  await claimAttempt(deps().store, fingerprint, range, 1, { workflow: 'w', run: 'r', key: 'ingest', decision: 0, runner: 'local', host: 'h', progress: '', at: '' })
  const job = jobFolder(root, fingerprint, range, 1)
  await mkdir(join(job.path, 'askers'), { recursive: true })
  let [counter, goesOn] = [0, true]
  const renewing = (async () => {
    while (goesOn) {
      await renewLease(job, 'asker', counter++)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  })()
  return async () => {
    goesOn = false
    await renewing
  }
}

test('of requests that overlap one does a unit; the other does its own, and waits for the rest while that job lives', async () => {
  const first = await shareUnits(deps(), [a, b], request('first'), 1)
  expect(first).toEqual({ mine: [{ unit: a, range: 0 }, { unit: b, range: 0 }], others: [] })
  const leave = await atWork('first')
  const second = await shareUnits(deps(), [{ ...b, index: 0 }, { ...c, index: 1 }], request('second'), 1)
  expect(second).toEqual({ mine: [{ unit: { ...c, index: 1 }, range: 0 }], others: [{ ...b, index: 0 }] })
  // asked again, each keeps what it has
  expect((await shareUnits(deps(), [a, b], request('first'), 1)).mine).toHaveLength(2)

  // its job is gone: the unit is taken over, as a range of its own, and by one of those who want it
  await leave()
  const [third, fourth] = await Promise.all([shareUnits(deps(), [{ ...b, index: 0 }], request('second'), 1), shareUnits(deps(), [b], request('fourth'), 3)])
  expect([...third.mine, ...fourth.mine]).toHaveLength(1)
  expect(third.mine.length === 1 ? third.mine[0]?.range : fourth.mine[0]?.range).toBe(third.mine.length === 1 ? 1 : 4)
})

test('a job that was claimed and is on its way counts as one that works', async () => {
  await shareUnits(deps(), [a], request('first'), 1)
  const asked = shareUnits(deps(), [a], request('second'), 1)
  const leave = await atWork('first')
  expect((await asked).mine).toEqual([])
  await leave()
})

test('units that many requests want at once go to one each', async () => {
  const shared = await Promise.all(Array.from({ length: 8 }, (_, i) => atWork(`request-${i}`)))
  const all = await Promise.all(shared.map((_, i) => shareUnits(deps(), [a, b, c], request(`request-${i}`), 1)))
  for (const { fingerprint } of [a, b, c]) expect(all.filter(({ mine }) => mine.some((m) => m.unit.fingerprint === fingerprint))).toHaveLength(1)
  for (const leave of shared) await leave()
})
