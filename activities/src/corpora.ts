import { CommittedCorpus, type CorpusCommit, type CorpusToCommit } from '@cpt/contracts/committed-corpus'
import { problemsOf } from '@cpt/contracts/parse-input'
import { ApplicationFailure } from '@temporalio/common'
import type { ArtifactStore } from './artifact-store/artifact-store.ts'
import type { Deps } from './deps.ts'
import { canonical } from './identity.ts'

const folder = 'corpora/'
const keyOf = (name: string, number: number): string => `${folder}${name}/${String(number).padStart(6, '0')}.json`
const numberIn = (key: string): number => Number(/^[^/]+\/[^/]+\/(\d{6,})\.json$/.exec(key)?.[1] ?? 0)

/** The newest committed corpus of a name, or null. */
export const newestCorpus = async (store: Pick<ArtifactStore, 'list' | 'get'>, name: string): Promise<CommittedCorpus | null> => {
  const number = Math.max(0, ...(await store.list(`${folder}${name}/`)).map(numberIn))
  return number === 0 ? null : await corpusAt(store, keyOf(name, number))
}

/** The names under which corpora are committed. */
export const corpusNames = async (store: Pick<ArtifactStore, 'list'>): Promise<string[]> =>
  [...new Set((await store.list(folder)).filter((key) => numberIn(key) > 0).map((key) => key.split('/')[1] ?? ''))].sort()

/** The newest committed corpus of every name. Throws where a record cannot be read. */
export const newestCorpora = async (store: Pick<ArtifactStore, 'list' | 'get'>): Promise<CommittedCorpus[]> =>
  (await Promise.all((await corpusNames(store)).map((name) => newestCorpus(store, name)))).filter((corpus) => corpus !== null)

/**
 * Commits a corpus under the next number of its name, unless the newest one has the same content. Of two committers at the
 * same moment one wins the number; the other looks at what won, and takes the next number only for content of its own.
 */
export const commitCorpus =
  ({ store }: Pick<Deps, 'store'>) =>
  async (corpus: CorpusToCommit): Promise<CorpusCommit> => {
    const { name, committedBy } = corpus
    for (;;) {
      const newest = await newestCorpus(store, name)
      // the answer of an earlier try may have been lost: what this run has put there is news
      if (newest !== null && contentOf(newest) === contentOf(corpus)) return { name, number: newest.number, unchanged: canonical(newest.committedBy) !== canonical(committedBy) }
      const number = (newest?.number ?? 0) + 1
      const record: CommittedCorpus = { format: 'cpt-corpus/1', number, ...corpus }
      if (await store.putIfAbsent(keyOf(name, number), Buffer.from(canonical(record)))) return { name, number, unchanged: false }
    }
  }

const contentOf = ({ corpus, sources, prepared }: CorpusToCommit): string => canonical({ corpus, sources, prepared })

const corpusAt = async (store: Pick<ArtifactStore, 'get'>, key: string): Promise<CommittedCorpus> => {
  const bytes = await store.get(key)
  const value = jsonIn(bytes)
  const parsed = CommittedCorpus.safeParse(value)
  if (parsed.success) return parsed.data
  const why = problemsOf(parsed.error, value).slice(0, 3).map((p) => `${p.path}: expected ${p.expected}, got ${p.got}`).join('; ')
  throw ApplicationFailure.nonRetryable(`store: ${key} is no record of a committed corpus (${why})`, 'StoreCorrupt')
}

const jsonIn = (bytes: Uint8Array | null): unknown => {
  try {
    return JSON.parse(Buffer.from(bytes ?? '').toString('utf8'))
  } catch {
    return undefined
  }
}
