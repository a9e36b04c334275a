import { openStore } from '@cpt/activities/artifact-store/open-store'
import { newestCorpora } from '@cpt/activities/corpora'
import { readConfig } from '../config.ts'
import { plainText } from '../plain-text.ts'
import { table } from '../run/table.ts'
import { quantity } from '../run/words.ts'

const print = (text: string): void => void process.stdout.write(`${text}\n`)

/** The newest corpus of each name that one was committed under. */
export const list = async (flags: { json?: boolean; state?: string }): Promise<void> => {
  const corpora = (await newestCorpora(openStore(readConfig({ stateDir: flags.state })))).map(({ name, number, sources, prepared, committedBy }) => ({
    name, number, sources: new Set(sources.map((s) => s.name)).size, docs: sum(prepared.counts.map((c) => c.docs)), tokens: sum(prepared.counts.map((c) => c.tokens)), committedBy: committedBy.workflowId,
  }))
  if (flags.json === true) return print(JSON.stringify(corpora))
  if (corpora.length === 0) return print('no corpus is committed under a name; a run with corpus.name, or the workflow corpusPreparation, does that')
  print(table(['corpus', 'number', 'sources', 'documents', 'tokens', 'by'], corpora.map((c) => [c.name, String(c.number), String(c.sources), String(c.docs), quantity(c.tokens), plainText(c.committedBy)])))
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0)
