import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { identify, isAlive } from './process-identity.mjs'

const read = (path) => {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return null
  }
}

/**
 * Takes a lock file for this process: {release} when taken, {holder} when another living process has it. The file
 * appears with its content at once (link), and one whose process is gone is replaced.
 */
export const tryLock = (path) => {
  mkdirSync(dirname(path), { recursive: true })
  const mine = identify()
  const draft = `${path}.${mine.pid}`
  writeFileSync(draft, JSON.stringify(mine))
  try {
    for (let tries = 0; tries < 5; tries++) {
      try {
        linkSync(draft, path)
        return { release: () => read(path)?.pid === mine.pid && rmSync(path, { force: true }) }
      } catch (error) {
        if (error.code !== 'EEXIST') throw error
      }
      const holder = read(path)
      if (holder !== null && isAlive(holder)) return { holder }
      // two may find the same dead holder, and one of them may be quicker: a living holder's file is put back
      const corpse = `${path}.dead.${mine.pid}`
      try {
        renameSync(path, corpse)
        const buried = read(corpse)
        if (buried !== null && isAlive(buried)) linkSync(corpse, path)
      } catch (error) {
        if (error.code !== 'ENOENT' && error.code !== 'EEXIST') throw error
      } finally {
        rmSync(corpse, { force: true })
      }
    }
    return { holder: read(path) ?? { pid: 0, start: '' } }
  } finally {
    rmSync(draft, { force: true })
  }
}

/** Waits until the lock file is ours, and says every ten seconds who is getting `what` meanwhile. */
export const waitForLock = async (path, what, say) => {
  for (let seconds = 0; ; seconds += 1) {
    const lock = tryLock(path)
    if (lock.release !== undefined) return lock
    if (seconds % 10 === 0) say(`  process ${lock.holder.pid} is getting ${what}; waiting for it, ${seconds} s`)
    await sleep(1000)
  }
}
