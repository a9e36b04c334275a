import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DefaultLogger, Runtime } from '@temporalio/worker'
import { makeHome, patched } from './home.ts'
import { killAt, killAtRandom } from './kills.ts'
import { leaveAt } from './leave.ts'
import { answersLost } from './lost-answers.ts'
import { plantedBugs } from './planted.ts'
import { pause } from './faults.ts'
import { prepare, startStand, type Prepared, type Stand } from './stand.ts'

/** A seed of its own each day is for `npm run chaos`; what runs before a commit is the same for everyone. */
const seed = Number(process.env['CPT_CHAOS_SEED'] ?? 1)

let prepared: Prepared
beforeAll(async () => {
  // replayed histories are checked by their result
  Runtime.install({ logger: new DefaultLogger('ERROR', () => undefined), telemetryOptions: { logging: { filter: 'OFF' } } })
  prepared = await prepare()
})
afterAll(() => prepared.remove())

describe('healthy code', () => {
  let stand: Stand
  beforeAll(async () => { stand = await startStand(prepared) })
  afterAll(() => stand.stop())

  test('a job, the worker and the server killed at random leave no trace in what is trained', async () => {
    const { violations, of } = await killAtRandom(stand, seed, 3, ['job', 'worker', 'server'])
    expect(violations).toEqual([])
    expect(of).toMatchObject({ job: 1, worker: 1, server: 1 })
  })

  test('a kill between the files of a checkpoint and its record leaves no trace either', async () => {
    const { violations, kills } = await killAt(stand, 'checkpoint-written', seed, 2)
    expect(violations).toEqual([])
    expect(kills).toBe(1)
  })

  test('of a cancelled run nothing is left', async () => {
    const { violations } = await leaveAt(stand, 'cancel', seed, (over) => pause(3_000, over))
    expect(violations).toEqual([])
  })
})

test('answers that are lost leave no trace', async () => {
  const stand = await startStand(prepared, { settings: { CPT_LOST_ANSWERS: `${seed}:40` } })
  try {
    const { violations, lost } = await answersLost(stand, seed)
    expect(violations).toBe('')
    expect(lost).toBeGreaterThan(0)
  } finally {
    await stand.stop()
  }
})

describe('planted bugs', () => {
  test.each(plantedBugs)('the patch that plants "$name" fits the code', async ({ patch }) => {
    expect(await patched(new URL('../../', import.meta.url).pathname, patch)).toContain(patch.edits[0]?.[1])
  })

  test('the checker sees that the position in the data is not restored', async () => {
    const bug = plantedBugs.find((b) => b.name === 'the position in the data is not restored')!
    const { home, remove } = await makeHome(bug.patch)
    const stand = await startStand(prepared, { home })
    try {
      expect((await bug.scenario(stand, seed)).map((v) => v.invariant)).toContain('I1')
    } finally {
      await stand.stop()
      await remove()
    }
  })
})
