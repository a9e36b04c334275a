import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { JobUnit } from '@cpt/contracts/job'
import { z } from 'zod'
import { claimsOf, isRenewedBy, jobFolder } from './claims.ts'
import type { Deps } from './deps.ts'

/**
 * Units of a map stage are the same work in every request that has them, so of two requests that overlap one does a unit and
 * the other waits. Who does it is on record as `units/<fp[0:2]>/<fp>/<n>.json`, put if absent; the highest n holds. An owner
 * whose job nobody renews the lease of is gone, and the next n may be taken: a unit done twice is committed once all the same.
 */
const Owner = z.object({ fingerprint: z.string(), range: z.int() })
export type Owner = z.infer<typeof Owner>
type OwnerDeps = Pick<Deps, 'store' | 'workDir'>

const keyOf = (unit: string, n: number): string => `units/${unit.slice(0, 2)}/${unit}/${n}.json`

/** How long an owner may take from its record to its first job. */
const startMs = 5_000

/** Who does a unit, and how often it changed hands; null: nobody yet. */
const ownerOf = async ({ store }: OwnerDeps, unit: string): Promise<{ owner: Owner; n: number } | null> => {
  let found: { owner: Owner; n: number } | null = null
  for (let n = 1; ; n++) {
    const bytes = await store.get(keyOf(unit, n))
    if (bytes === null) return found
    found = { owner: Owner.parse(JSON.parse(Buffer.from(bytes).toString('utf8'))), n }
  }
}

const take = async (deps: OwnerDeps, unit: string, n: number, me: Owner): Promise<boolean> => await deps.store.putIfAbsent(keyOf(unit, n), Buffer.from(JSON.stringify(me)))

/**
 * Takes the units that nobody has, or whose owner is gone, and tells them from those that another request's job works at. Each
 * of `mine` has the range under which its job is claimed: `me.range`, or one of its own after the stage's `ranges`
 * where it was taken over: the job of `me.range` may have ended before.
 */
export const shareUnits = async (deps: OwnerDeps, units: readonly JobUnit[], me: Owner, ranges: number): Promise<{ mine: { unit: JobUnit; range: number }[]; others: JobUnit[] }> => {
  const owned = await Promise.all(units.map(async (unit) => {
    for (;;) {
      const found = await ownerOf(deps, unit.fingerprint)
      if (found !== null) return { unit, ...found }
      if (await take(deps, unit.fingerprint, 1, me)) return { unit, owner: me, n: 1 }
    }
  }))
  const looks = new Map<string, Promise<boolean>>()
  const isAlive = (owner: Owner): Promise<boolean> => {
    const name = `${owner.fingerprint}/${owner.range}`
    const look = looks.get(name) ?? isAtWork(deps, owner)
    looks.set(name, look)
    return look
  }
  const mine = await Promise.all(owned.map(async ({ unit, owner, n }) => {
    if (owner.fingerprint === me.fingerprint) return [{ unit, range: owner.range }]
    const own = { fingerprint: me.fingerprint, range: ranges + unit.index }
    return !(await isAlive(owner)) && (await take(deps, unit.fingerprint, n + 1, own)) ? [{ unit, range: own.range }] : []
  }))
  const taken = mine.flat()
  return { mine: taken, others: units.filter((unit) => !taken.some((m) => m.unit === unit)) }
}

/** Whether somebody renews the lease of an owner's last job, or it may only just have begun. */
const isAtWork = async ({ store, workDir }: OwnerDeps, { fingerprint, range }: Owner): Promise<boolean> => {
  const until = performance.now() + startMs
  do {
    const attempts = (await claimsOf(store, fingerprint, range)).length
    const job = jobFolder(workDir, fingerprint, range, attempts)
    if (attempts > 0 && existsSync(join(job.path, 'end.json'))) return false
    if (attempts > 0 && (await isRenewedBy(job, () => true))) return true
    await delay(100)
  } while (performance.now() < until)
  return false
}
