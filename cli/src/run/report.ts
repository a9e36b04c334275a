import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { CliError } from '../cli-error.ts'
import { readConfig } from '../config.ts'
import { plainText } from '../plain-text.ts'
import { idsMeant } from '../startable.ts'
import { runningUp } from '../up/up-record.ts'

const Written = z.object({ workflowId: z.string(), run: z.string(), folder: z.string(), startedAtMs: z.number(), verdict: z.string() })

/** The reports on this machine, newest first; a folder without a readable run.json is none. */
const written = async (reportsDir: string): Promise<z.infer<typeof Written>[]> => {
  const folders = await readdir(reportsDir).catch(() => [])
  const found = await Promise.all(folders.map(async (folder) => {
    try {
      return Written.safeParse(JSON.parse(await readFile(join(reportsDir, folder, 'run.json'), 'utf8'))).data
    } catch {
      return undefined
    }
  }))
  return found.filter((w) => w !== undefined).sort((a, b) => b.startedAtMs - a.startedAtMs)
}

/** Where the newest report of a run lies; without a run, all reports. They are files: no server is asked. */
export const report = async (named: string | undefined, flags: { state?: string }): Promise<void> => {
  const { stateDir, reportsDir } = readConfig({ stateDir: flags.state })
  const reports = await written(reportsDir)
  const served = runningUp(stateDir)?.reportsUrl ?? null
  const words = (w: z.infer<typeof Written>) => [join(reportsDir, w.folder, 'index.html'), ...(served === null ? [] : [`${served}/${w.folder}/index.html`])].map(plainText)
  if (named === undefined) {
    for (const w of reports) process.stdout.write(`${plainText(w.workflowId)}  ${new Date(w.startedAtMs).toISOString()}  ${plainText(w.verdict)}  ${words(w)[0]}\n`)
    return void process.stdout.write(`${reports.length === 0 ? `no reports in ${reportsDir} yet` : reportsDir}\n${served ?? 'not served at the moment; `npx cpt up` serves them'}\n`)
  }
  const found = reports.find((w) => idsMeant(named).includes(w.workflowId))
  if (found === undefined) throw new CliError('failed', `${named} has no report in ${reportsDir}`, 'A run writes it when it ends; `cpt status` shows how far it is, `cpt report` lists those there are.')
  process.stdout.write(`${words(found).join('\n')}\n`)
}
