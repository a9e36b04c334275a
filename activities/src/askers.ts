import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Client } from '@temporalio/client'
import type { RunIdentity } from '@cpt/contracts/activities'
import { z } from 'zod'
import { draftsIn } from './artifact-store/drafts.ts'
import { askerOf } from './claims.ts'
import type { Deps } from './deps.ts'
import { replaceFile } from './replace-file.ts'

/** Who an asker is, so that one can ask its server whether it still lives. The namespace's id tells servers apart. */
export const AskerName = z.object({ namespaceId: z.string(), workflowId: z.string(), firstRunId: z.string(), key: z.string() })
export type AskerName = z.infer<typeof AskerName>

const fileOf = (workDir: string, asker: string): string => join(workDir, 'askers', asker, 'who')

/** Puts down who asks, before the first job is asked for. */
export const nameAsker = async ({ workDir, client }: Pick<Deps, 'workDir' | 'client'>, run: RunIdentity, key: string): Promise<void> => {
  const asker = askerOf(run.workflowId, run.firstRunId, key)
  const path = fileOf(workDir, asker)
  if (existsSync(path)) return
  const name: AskerName = { namespaceId: await namespaceIdOf(client), ...run, key }
  await mkdir(join(workDir, 'askers', asker), { recursive: true })
  await replaceFile(path, JSON.stringify(name), { drafts: draftsIn(workDir) })
}

/** Null where nobody has put it down. */
export const whoIs = async (workDir: string, asker: string): Promise<AskerName | null> => {
  const text = await readFile(fileOf(workDir, asker), 'utf8').catch(() => null)
  return text === null ? null : AskerName.parse(JSON.parse(text))
}

const namespaceIds = new WeakMap<Client, Promise<string>>()

/** The id that a server gave to our namespace when it was made: two servers' namespaces of one name differ in it. */
export const namespaceIdOf = async (client: Client): Promise<string> => {
  const asked = namespaceIds.get(client) ?? client.workflowService.describeNamespace({ namespace: client.options.namespace }).then((d) => d.namespaceInfo?.id ?? '')
  namespaceIds.set(client, asked)
  try {
    return await asked
  } catch (e) {
    namespaceIds.delete(client)
    throw e
  }
}
