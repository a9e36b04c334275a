import { setTimeout as sleep } from 'node:timers/promises'
import type { Connection } from '@temporalio/client'
import { searchAttributes } from '@cpt/contracts/ids'
import { CliError } from './cli-error.ts'

const retentionDays = 30
const daySeconds = 86_400
const patienceMs = 30_000

/** temporal.api.enums.v1.IndexedValueType */
const valueType = { Keyword: 2, Int: 3, Double: 4 } as const
const grpcStatus = { notFound: 5, alreadyExists: 6 } as const

const hasCode = (error: unknown, code: number): boolean => typeof error === 'object' && error !== null && 'code' in error && error.code === code

/** Creates the namespace or raises its retention: the server's own default forgets runs after a day. */
export const registerNamespace = async ({ workflowService }: Connection, namespace: string): Promise<void> => {
  const workflowExecutionRetentionTtl = { seconds: retentionDays * daySeconds } as never
  try {
    const { config } = await workflowService.describeNamespace({ namespace })
    if (Number(config?.workflowExecutionRetentionTtl?.seconds ?? 0) >= retentionDays * daySeconds) return
    await workflowService.updateNamespace({ namespace, config: { workflowExecutionRetentionTtl } })
  } catch (error) {
    if (!hasCode(error, grpcStatus.notFound)) throw error
    await workflowService
      .registerNamespace({ namespace, description: 'Continual pre-training of language models', workflowExecutionRetentionPeriod: workflowExecutionRetentionTtl })
      .catch((e: unknown) => {
        if (!hasCode(e, grpcStatus.alreadyExists)) throw e
      })
  }
}

/** Adds the search attributes that are missing, and waits until the server knows them all. */
export const registerSearchAttributes = async ({ operatorService }: Connection, namespace: string): Promise<void> => {
  const deadlineMs = performance.now() + patienceMs
  for (;;) {
    try {
      const known: Record<string, number> = (await operatorService.listSearchAttributes({ namespace })).customAttributes
      const missing = Object.entries(searchAttributes).filter(([name]) => known[name] === undefined)
      const wrong = Object.entries(searchAttributes).find(([name, type]) => known[name] !== undefined && known[name] !== valueType[type])
      if (wrong !== undefined) throw new CliError('conflict', `search attribute ${wrong[0]} of namespace ${namespace} has another type than ${wrong[1]}`, 'Remove it with `temporal operator search-attribute remove`, or use another namespace (TEMPORAL_NAMESPACE).')
      if (missing.length === 0) return
      await operatorService.addSearchAttributes({ namespace, searchAttributes: Object.fromEntries(missing.map(([name, type]) => [name, valueType[type]])) })
    } catch (error) {
      // a namespace made a moment ago is not known everywhere yet
      const isFresh = hasCode(error, grpcStatus.notFound) || hasCode(error, grpcStatus.alreadyExists)
      if (!isFresh || performance.now() > deadlineMs) throw error
    }
    if (performance.now() > deadlineMs) throw new CliError('failed', `the search attributes of namespace ${namespace} did not appear within ${patienceMs / 1000} s`, 'Try again; see the log of the server.')
    await sleep(250)
  }
}

/** Namespace (retention 30 days) and search attributes, as often as one likes. */
export const register = async (connection: Connection, namespace: string): Promise<void> => {
  await registerNamespace(connection, namespace)
  await registerSearchAttributes(connection, namespace)
}
