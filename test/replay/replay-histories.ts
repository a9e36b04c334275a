import { fileURLToPath } from 'node:url'
import { bundleWorkflowCode, DefaultLogger, type InjectedSinks, Runtime, Worker } from '@temporalio/worker'
import type { InputSinks } from './capture-inputs.ts'
import type { Recorded } from './recorded-histories.ts'

/** A call and its arguments, as they come out of JSON. */
export interface Called {
  call: string
  args: unknown
}

export interface Replayed {
  name: string
  /** Why the workflow code does not replay; null when it does. */
  error: string | null
  /** What the code called, in its order; empty unless it was bundled by `bundleWithInputs`. */
  called: Called[]
}

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url))

/** What a mutant breaks is expected, and said by the result: the SDK's own words on it are not shown. */
export const silenceSdk = (): Runtime => Runtime.install({ logger: new DefaultLogger('ERROR', () => undefined), telemetryOptions: { logging: { filter: 'OFF' } } })

/** The workflow code of today with the interceptor that tells inputs. */
export const bundleWithInputs = async (): Promise<string> =>
  (await bundleWorkflowCode({ workflowsPath: path('../../workflows/src/workflows.ts'), workflowInterceptorModules: [path('capture-inputs.ts')], logger: new DefaultLogger('WARN') })).code

/** Replays histories on workflow code, one after the other. */
export const replayHistories = async (code: string, histories: Recorded[]): Promise<Replayed[]> => {
  let called: Called[] = []
  const sinks: InjectedSinks<InputSinks> = { inputs: { called: { fn: (_run, call, args) => void called.push({ call, args: JSON.parse(args) as unknown }), callDuringReplay: true } } }
  const replayed: Replayed[] = []
  const results = Worker.runReplayHistories({ workflowBundle: { code }, sinks }, histories)
  // a run's calls have all been told when its result comes
  for await (const { error } of results) {
    replayed.push({ name: histories[replayed.length]!.name, error: error?.message ?? null, called })
    called = []
  }
  return replayed
}
