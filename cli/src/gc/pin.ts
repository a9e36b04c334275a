import { openStore } from '@cpt/activities/artifact-store/open-store'
import type { ArtifactStore } from '@cpt/activities/artifact-store/artifact-store'
import { pin as keep, pinsIn, unpin as release } from '@cpt/activities/gc/pins'
import { CliError } from '../cli-error.ts'
import { operator, readConfig } from '../config.ts'
import { plainText } from '../plain-text.ts'
import { runNamed, type Named } from '../run/run-named.ts'
import { table } from '../run/table.ts'
import { idsMeant } from '../startable.ts'

interface StateFlag {
  state?: string
}

/** Keeps a result, or all that a run committed so far, until it is unpinned. */
export const pin = async (named: string, flags: StateFlag & { reason: string }): Promise<void> => {
  const config = readConfig({ stateDir: flags.state })
  const store = openStore(config)
  const { name, what, marks } = (await commitNamed(store, named)) ?? (await runNamed(config, store, named))
  const [fingerprints, decisions] = [[...marks.fingerprints].sort(), [...marks.decisions].sort()]
  await keep(store, name, { what, fingerprints, decisions, reason: flags.reason, by: operator(), at: new Date().toISOString() })
  process.stdout.write(`${name}: ${plainText(what)} is kept until \`npx cpt gc unpin ${name}\`\n`)
}

export const unpin = async (name: string, flags: StateFlag): Promise<void> => {
  const store = openStore(readConfig({ stateDir: flags.state }))
  const pins = await pinsIn(store)
  const found = pins.has(name) ? [name] : [...pins].flatMap(([n, { what }]) => (idsMeant(name).includes(what) || (isDigits(name) && n.startsWith(name)) ? [n] : []))
  const [only, ...others] = found
  if (only === undefined || others.length > 0) throw new CliError('failed', `${found.length === 0 ? 'no pin is' : `${found.length} pins are`} named ${name}`, '`npx cpt gc pins` lists them.')
  await release(store, only)
  process.stdout.write(`${only}: no longer pinned\n`)
}

export const pins = async (flags: StateFlag & { json?: boolean }): Promise<void> => {
  const found = [...(await pinsIn(openStore(readConfig({ stateDir: flags.state }))))]
  if (flags.json === true) return void process.stdout.write(`${JSON.stringify(found.map(([name, p]) => ({ name, ...p })))}\n`)
  if (found.length === 0) return void process.stdout.write('nothing is pinned\n')
  process.stdout.write(`${table(['pin', 'of', 'by', 'since', 'reason'], found.map(([name, p]) => [name, plainText(p.what), plainText(p.by), p.at.slice(0, 10), plainText(p.reason)]))}\n`)
}

const isDigits = (text: string): boolean => /^[0-9a-f]{8,64}$/.test(text)

const commitNamed = async (store: ArtifactStore, named: string): Promise<Named | null> => {
  if (!isDigits(named)) return null
  const found = (await store.list(`commits/${named.slice(0, 2)}/${named}`)).map((key) => key.slice(-69, -5))
  const [only, ...others] = found
  if (only === undefined || others.length > 0) throw new CliError('failed', `${found.length === 0 ? 'no commit begins' : `${found.length} commits begin`} with ${named}`, 'Give more of the fingerprint; the report of a run shows it for every stage.')
  return { name: only, what: only, marks: { fingerprints: new Set([only]), decisions: new Set() } }
}
