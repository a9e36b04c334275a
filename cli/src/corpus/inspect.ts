import type { ArtifactStore } from '@cpt/activities/artifact-store/artifact-store'
import { openStore } from '@cpt/activities/artifact-store/open-store'
import { PythonFailed } from '@cpt/activities/ask-python'
import type { Config } from '@cpt/activities/config'
import { newestCorpus } from '@cpt/activities/corpora'
import { parentsOf } from '@cpt/activities/identity'
import { corpusArtifacts } from '@cpt/activities/inspect/corpus-artifacts'
import { inspectCorpus, type Find, type Found } from '@cpt/activities/inspect/inspect-corpus'
import { CliError } from '../cli-error.ts'
import { readConfig } from '../config.ts'
import { plainText } from '../plain-text.ts'
import { runNamed } from '../run/run-named.ts'
import { documentWords } from './document-words.ts'

export interface InspectFlags {
  droppedBy?: string
  kept?: boolean
  source?: string
  language?: string
  sample: number
  seed: number
  text?: boolean
  json?: boolean
  state?: string
}

const print = (text: string): void => void process.stdout.write(`${text}\n`)

/** Shows documents of a committed corpus or of a run, with all that was decided about each and why. */
export const inspect = async (named: string, id: string | undefined, flags: InspectFlags): Promise<void> => {
  const config = readConfig({ stateDir: flags.state })
  const find = findOf(id, flags)
  const store = openStore(config)
  const what = await corpusArtifacts(store, await fingerprintsOf(config, store, named))
  if (what.pools.length === 0) throw new CliError('failed', `${plainText(named)} has no corpus yet: ingest has not ended`, 'Look again when it has; `npx cpt status` shows how far a run is.')
  const steps = new Set(what.pools.flatMap((p) => p.steps.map((s) => s.stage)))
  if (find.step !== null && !steps.has(find.step)) throw new CliError('usage', `no stage ${plainText(find.step)} has judged this corpus`, `These have: ${[...steps].join(', ')}. Example: --dropped-by filter/too-short`)
  const found = await inspectCorpus(config, what, find).catch((error: unknown) => {
    if (error instanceof PythonFailed) throw new CliError('failed', error.message, 'Is the store whole, and is Python there? `npx cpt doctor` looks.')
    throw error
  })
  if (flags.json === true) return print(JSON.stringify(found))
  if (id !== undefined) return showOne(id, found, flags.text === true)
  if (found.documents.length === 0) return print(`none of ${found.looked} documents is such a one`)
  print(found.documents.map((doc) => documentWords(doc, flags.text === true)).join('\n\n'))
  print(`\n${found.documents.length} of ${found.fitting ?? 0} such documents, of ${found.looked} in all; --sample shows more, --seed others`)
}

const findOf = (id: string | undefined, flags: InspectFlags): Find => {
  const sampling = [flags.droppedBy, flags.kept, flags.source, flags.language].some((flag) => flag !== undefined)
  if (id !== undefined && sampling) throw new CliError('usage', 'a document was named, and a sample asked for', 'Leave out either the document or --dropped-by, --kept, --source and --language.')
  if (flags.kept === true && flags.droppedBy !== undefined) throw new CliError('usage', 'no document is both kept and dropped', 'Give --kept or --dropped-by.')
  const [step = null, ...reason] = flags.droppedBy?.split('/') ?? []
  return { id: id ?? null, count: flags.sample, seed: flags.seed, step, reason: reason.length === 0 ? null : reason.join('/'), kept: flags.kept === true, source: flags.source ?? null, language: flags.language ?? null }
}

/** Commits that a name stands for: of the newest corpus committed under it, else of the run. */
const fingerprintsOf = async (config: Config, store: ArtifactStore, named: string): Promise<Iterable<string>> => {
  const corpus = /^[a-z0-9][a-z0-9._-]*$/.test(named) ? await newestCorpus(store, named) : null
  return corpus === null ? (await runNamed(config, store, named)).marks.fingerprints : parentsOf(corpus.prepared)
}

const showOne = (id: string, { documents, quarantined, sources, looked }: Found, whole: boolean): void => {
  if (documents.length > 0) return print(documents.map((doc) => documentWords(doc, whole)).join('\n\n'))
  for (const q of quarantined) print(`${plainText(q.source)}, line ${q.line} (byte ${q.offset}) could not be read: ${plainText(q.reason)}; sha256 of the line ${q.sha256}`)
  if (quarantined.length > 0) return
  throw new CliError('failed', `none of ${looked} documents is called ${plainText(id)}, and no line of that name is quarantined`, `Documents are called <source>:<id, or line>, of a source that is a folder <source>/<file>:<id, or line>; @<shard>/<row> names a place. Sources: ${sources.map(plainText).join(', ')}`)
}
