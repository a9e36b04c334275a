import { setTimeout as sleep } from 'node:timers/promises'

const pollMs = 50

/**
 * Looks until there is something to see and returns it; fails with `what` after the deadline. An error thrown by `look`
 * ends the waiting at once: whoever may see errors on the way catches them itself.
 */
export const until = async <T>(what: string, look: () => Promise<T | null | false> | T | null | false, deadlineSeconds = 120): Promise<T> => {
  const deadlineMs = performance.now() + deadlineSeconds * 1000
  for (;;) {
    const seen = await look()
    if (seen !== null && seen !== false) return seen
    if (performance.now() > deadlineMs) throw new Error(`waited ${deadlineSeconds} s for: ${what}`)
    await sleep(pollMs)
  }
}
