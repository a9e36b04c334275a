import type { Logger } from 'pino'

/** One call in `every` on average is performed and then reported as timed out, chosen by `seed`. */
export interface LostAnswers {
  seed: number
  every: number
}

/** `seed:every` of CPT_LOST_ANSWERS. Throws with the variable's name. */
export const parseLostAnswers = (text: string): LostAnswers => {
  const [seed, every] = text.split(':').map(Number)
  if (seed === undefined || every === undefined || !Number.isInteger(seed) || !(every >= 1)) throw new Error(`CPT_LOST_ANSWERS: expected seed:every, such as 7:20, got ${text}`)
  return { seed, every }
}

/** An outside call that was executed, and whose answer did not come. */
export class AnswerLost extends Error {
  override readonly name = 'AnswerLost'
}

/**
 * The adapter, whose answers are lost now and then after the call was performed: what a time-out of a store, scheduler
 * or server looks like from here. For tests; `onLost` hears the name of every call whose answer went missing.
 */
export const losingAnswers = <T extends object>(adapter: T, name: string, { seed, every }: LostAnswers, onLost: (call: string) => void): T => {
  const isLost = oneIn(every, seed)
  // what an adapter hands out without a promise (a client's handles) is an adapter too
  const wrapped = (value: unknown): unknown => (typeof value === 'object' && value !== null ? losing(value) : value)
  const losing = <A extends object>(inner: A): A => new Proxy(inner, {
    get: (target, key) => {
      const member: unknown = Reflect.get(target, key, target)
      if (typeof member !== 'function') return wrapped(member)
      return (...args: unknown[]): unknown => {
        const answer: unknown = Reflect.apply(member, target, args)
        if (!(answer instanceof Promise)) return wrapped(answer)
        return answer.then((value: unknown) => {
          if (!isLost()) return value
          const call = `${name}.${String(key)}`
          onLost(call)
          throw new AnswerLost(`${call}: timed out (it was executed, and its answer lost on purpose)`)
        })
      }
    },
  })
  return losing(adapter)
}

/** The adapters among what activities stand on (deps.ts). */
interface Adapters {
  store: object
  client: object
  runners: Readonly<Record<string, object>>
  log: Pick<Logger, 'warn'>
}

/** Every adapter of a worker, losing answers; each has a sequence of its own and each loss is a line in the log. */
export const withLostAnswers = <D extends Adapters>(deps: D, settings: LostAnswers): D => {
  const { log } = deps
  const losing = <T extends object>(adapter: T, name: string, nth: number): T =>
    losingAnswers(adapter, name, { ...settings, seed: settings.seed + nth * 7919 }, (call) => { log.warn({ call }, 'answer lost on purpose') })
  return {
    ...deps,
    store: losing(deps.store, 'store', 1),
    client: losing(deps.client, 'client', 2),
    runners: Object.fromEntries(Object.entries(deps.runners).map(([name, runner], i) => [name, losing(runner, name, 3 + i)])),
  }
}

/** True once in `every` calls on average, by a small generator (mulberry32) that a seed repeats. */
const oneIn = (every: number, seed: number): (() => boolean) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296 < 1 / every
  }
}
