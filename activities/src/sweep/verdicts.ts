import { randomUUID } from 'node:crypto'
import type { ControlActivities, ResolvedSweep } from '@cpt/contracts/activities'
import { ArtifactRef, type CommitRecord } from '@cpt/contracts/artifact'
import { VerdictFile } from '@cpt/contracts/sweep-verdict'
import { z } from 'zod'
import type { Deps } from '../deps.ts'
import { canonical, fingerprintOf, parentsOf, sha256 } from '../identity.ts'
import { needsPerson, StoreCorrupt, UnknownPath } from '../stage-failure.ts'
import { invalidInput } from '../resolve-input.ts'
import { trialStates } from './trial-states.ts'

/** Name and version of what a verdict is committed as; a choice that would come out otherwise is another version. */
const choice = { name: 'choose-cell', version: 1 } as const
const fileName = 'verdict.json'

const Swept = z.object({ verdict: ArtifactRef, workflowId: z.string(), report: z.string().nullable() })

/**
 * Keeps the verdict of a sweep beside all it was made from, as an artifact; its parents are the trained models. The same
 * inputs are committed once, and what was committed first holds.
 */
export const commitVerdict =
  ({ store }: Pick<Deps, 'store'>): ControlActivities['commitVerdict'] =>
  async (file) => {
    const { verdict, ...inputs } = file
    const fingerprint = fingerprintOf(choice, inputs)
    const refTo = () => store.refTo(`store:${fingerprint}/${fileName}`)
    if ((await store.record(fingerprint)) !== null) {
      const verdictRef = await refTo()
      return { verdict: (await fileAt(store, verdictRef)).verdict, verdictRef }
    }
    const bytes = Buffer.from(canonical(file))
    const attempt = `choice-${randomUUID()}`
    const mine: CommitRecord = {
      format: 'cpt-commit/1', fingerprint, stage: choice.name, version: choice.version, request: { workflowId: inputs.workflowId, sweep: inputs.sweep.name },
      files: [await store.write(fingerprint, attempt, fileName, bytes)], result: { chosen: verdict.chosen, words: verdict.words }, parents: parentsOf(inputs), attempt, wallSeconds: 0, committedAt: new Date().toISOString(),
    }
    const held = await store.commit(mine)
    const verdictRef = await refTo()
    return { verdict: held.attempt === attempt ? verdict : (await fileAt(store, verdictRef)).verdict, verdictRef }
  }

/** Puts down that a sweep came to this verdict, so that the very same is not swept again for nothing. */
export const rememberSweep =
  ({ store }: Pick<Deps, 'store'>): ControlActivities['rememberSweep'] =>
  async ({ resolved, ...swept }) => {
    await store.putIfAbsent(`${folderOf(resolved)}${swept.verdict.uri.slice(6, 70)}.json`, Buffer.from(canonical(swept)))
  }

/**
 * The verdict of an earlier sweep of exactly the same, if it has all its trials, or lacks only such as still wait for a
 * person.
 */
export const sweptBefore =
  ({ store, client }: Pick<Deps, 'store' | 'client'>): ControlActivities['sweptBefore'] =>
  async (resolved) => {
    for (const key of await store.list(folderOf(resolved))) {
      const swept = Swept.parse(JSON.parse(Buffer.from((await store.get(key)) ?? '').toString('utf8')))
      const fingerprint = swept.verdict.uri.slice(6, 70)
      // one that was removed from the store is no longer known; one that cannot be read is for a person
      if ((await store.record(fingerprint)) === null) continue
      const file = await fileAt(store, swept.verdict).catch((e: unknown) => {
        throw needsPerson('StoreCorrupt', `the verdict of ${swept.workflowId}: ${e instanceof Error ? e.message : String(e)}`, { stage: choice.name, fingerprint, attempts: 0, endClass: 'bad-data', logTail: [] })
      })
      const missing = file.trials.filter((t) => t.measurement === null)
      const parked = missing.filter((t) => t.status === 'parked')
      const stillWait = parked.length === missing.length && (await trialStates({ client })(parked.map((t) => t.workflowId))).every((t) => t.isOpen)
      if (stillWait) return { verdict: file.verdict, verdictRef: swept.verdict, report: swept.report, workflowId: swept.workflowId, trials: file.trials.map(({ index, point, status, workflowId }) => ({ index, point, status, workflowId })) }
    }
    return null
  }

/** The verdict that a transfer cites, with all it was made from. Fails with InvalidInput where it is not what was cited. */
export const readVerdict =
  ({ store }: Pick<Deps, 'store'>): ControlActivities['readVerdict'] =>
  async ({ uri, sha256: expected }) => {
    const refuse = (why: string, got: string) => invalidInput([{ path: 'verdict', expected: why, got }])
    const ref = await store.refTo(uri).catch((e: unknown) => {
      if (!(e instanceof UnknownPath)) throw e
      throw refuse('the verdict of a sweep that is in this store: verdictRef of its result', e.message)
    })
    if (ref.sha256 !== expected) throw refuse(`the digest that was cited, ${expected}`, `${ref.sha256} at ${uri}`)
    const parsed = await fileAt(store, ref).catch((e: unknown) => {
      if (e instanceof StoreCorrupt) throw refuse('bytes of the cited digest', e.message)
      throw e
    })
    return { ...parsed, verdictRef: ref }
  }

const fileAt = async (store: Deps['store'], ref: ArtifactRef): Promise<VerdictFile> => VerdictFile.parse(JSON.parse(Buffer.from(await store.read(ref)).toString('utf8')))

/** Where sweeps of the same content are put down: all that decides what a trial is and how one is chosen, and nothing else. */
const folderOf = ({ sweep, run }: ResolvedSweep): string => {
  const { name: _name, description: _words, owner: _owner, parallel: _parallel, budgetGpuSeconds: _budget, expectedGpuSeconds: _expected, parkedTrials: _parked, whenUnchanged: _unchanged, ...swept } = sweep
  const { name: _run, description: _of, owner: _by, placement: _placement, corpus: { name: _corpus, ...corpus }, ...spec } = run.spec
  return `sweeps/${sha256(canonical({ choice, swept, spec: { ...spec, corpus }, files: [run.base, run.tokenizer, ...run.sources.map((s) => s.file), ...run.benchmarks.map((b) => b.items), ...(run.scorer === undefined ? [] : [run.scorer])].map((f) => f.sha256) }))}/`
}
