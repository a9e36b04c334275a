import { makeSmallCorpus } from './small-run.ts'
import { startSystem, type System, type SystemOptions } from './system.ts'

/** A system that knows the small corpus as root `small`; its end removes the corpus too. */
export const startSmallSystem = async (options: Omit<SystemOptions, 'roots'> = {}): Promise<System> => {
  const corpus = await makeSmallCorpus()
  try {
    const system = await startSystem({ ...options, roots: { small: corpus.dir } })
    return { ...system, stop: () => system.stop().finally(() => corpus.remove()) }
  } catch (e) {
    await corpus.remove()
    throw e
  }
}
