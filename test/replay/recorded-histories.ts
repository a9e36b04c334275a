import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { historyFromJSON } from '@temporalio/common/lib/proto-utils'

/** The history of one run. A chain of runs (continue-as-new) has one for each: `complete`, `complete.run-2`, … */
export interface Recorded {
  name: string
  workflowId: string
  /** Protobuf JSON, as the CLI and the UI export it. */
  history: unknown
}

const folder = new URL('histories/', import.meta.url)
const runNumber = /\.run-\d+$/

/** The scenario that a history was recorded from. */
export const scenarioOf = (name: string): string => name.replace(runNumber, '')

const fileNames = async (): Promise<string[]> => (await readdir(folder)).filter((n) => n.endsWith('.json')).sort()

export const readHistories = async (): Promise<Recorded[]> =>
  await Promise.all((await fileNames()).map(async (file) => ({ name: file.slice(0, -'.json'.length), ...(JSON.parse(await readFile(new URL(file, folder), 'utf8')) as Omit<Recorded, 'name'>) })))

/** Keeps the histories of a scenario's runs, in their order, in the place of those it had. */
export const writeHistories = async (scenario: string, workflowId: string, histories: unknown[]): Promise<void> => {
  await mkdir(folder, { recursive: true })
  for (const file of await fileNames()) if (scenarioOf(file.slice(0, -'.json'.length)) === scenario) await rm(new URL(file, folder))
  for (const [i, history] of histories.entries()) {
    await writeFile(new URL(`${scenario}${i === 0 ? '' : `.run-${i + 1}`}.json`, folder), `${JSON.stringify({ workflowId, history })}\n`)
  }
}

/** The events of a history, decoded. */
export const eventsOf = ({ history }: Pick<Recorded, 'history'>) => historyFromJSON(history).events ?? []
