import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { CommitRecord } from '@cpt/contracts/artifact'
import { CptRunSpec } from '@cpt/contracts/cpt-run'
import pino from 'pino'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { startS3, type S3Server } from '../../../infra/s3/start.mjs'
import type { ArtifactStore } from '../artifact-store/artifact-store.ts'
import { localDiskStore } from '../artifact-store/local-disk.ts'
import { s3Store } from '../artifact-store/s3.ts'
import { claimAttempt, jobFolder } from '../claims.ts'
import { loadConfig } from '../config.ts'
import { commitCorpus } from '../corpora.ts'
import { sha256 } from '../identity.ts'
import { overPreset } from '../resolve-input.ts'
import { intactRecord } from '../run-stage.ts'
import { collectGarbage, type GcPlace, type GcReport } from './collect-garbage.ts'
import { marksIn, noMarks } from './marks.ts'
import { pin } from './pins.ts'

const dayMs = 86_400_000
const log = pino({ level: 'silent' })
const bytes = (text: string): Uint8Array => Buffer.from(text)
const fingerprint = (name: string): string => sha256(`work ${name}`)
const recordOf = (name: string): CommitRecord => ({
  format: 'cpt-commit/1', fingerprint: fingerprint(name), stage: 'filter', version: 1, request: {}, files: [], result: {}, parents: [], attempt: 'a1', wallSeconds: 1, committedAt: new Date(Date.now() - 30 * dayMs).toISOString(),
})
const refTo = (name: string) => ({ uri: `store:${fingerprint(name)}/out.json`, sha256: sha256(name), bytes: 1 })

let s3: S3Server
beforeAll(async () => {
  s3 = await startS3()
}, 600_000)
afterAll(() => s3.stop())

let folder = ''
let buckets = 0
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cpt-gc-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const places = {
  disk: (): ArtifactStore => localDiskStore({ store: join(folder, 'store') }),
  S3: (): ArtifactStore => s3Store({}, { ...s3, prefix: `gc-${buckets++}` }, join(folder, 'cache')),
}

describe.each(Object.entries(places))('gc on %s', (_kind, open) => {
  let store: ArtifactStore
  let place: GcPlace
  let aheadMs = 0
  beforeEach(() => {
    store = open()
    aheadMs = 0
    place = { store, config: { workDir: join(folder, 'work'), cacheDir: join(folder, 'cache'), reportsDir: join(folder, 'reports'), leaseSeconds: 60 }, runs: () => Promise.resolve(noMarks()), now: () => Date.now() + aheadMs }
  })

  /** Commits work as a job would, 30 days ago by its record. */
  const commit = async (name: string, over: Partial<CommitRecord> = {}): Promise<CommitRecord> => {
    const f = fingerprint(name)
    const file = await store.write(f, 'a1', 'out.json', bytes(`result of ${name}`))
    return await store.commit({ ...recordOf(name), files: [file], ...over })
  }
  /** An attempt's claim and folder. */
  const job = async (name: string, attempt: number, { isOver, request = {} }: { isOver: boolean; request?: unknown }): Promise<string> => {
    const f = fingerprint(name)
    await claimAttempt(store, f, 0, attempt, { workflow: 'w', run: 'r', key: 'k', decision: 0, runner: 'local', host: 'h', progress: '', at: '' })
    const { path } = jobFolder(place.config.workDir, f, 0, attempt)
    await mkdir(path, { recursive: true })
    await writeFile(join(path, 'request.json'), JSON.stringify(request))
    if (isOver) await writeFile(join(path, 'end.json'), '{}')
    return path
  }
  /** Sets the clock ahead, so that all there is now is 30 days old. */
  const age = (): void => void (aheadMs = 30 * dayMs)
  const gc = async (over: Partial<GcPlace> = {}, olderThanMs = dayMs): Promise<GcReport> => await collectGarbage({ ...place, ...over }, { olderThanMs, apply: true })
  const wants = (...names: string[]): GcPlace['runs'] => () => Promise.resolve(marksIn(names.map(fingerprint).join(' ')))
  const left = async (): Promise<string[]> => [...(await store.entries('')).map((e) => e.key), ...(await readdir(place.config.workDir, { recursive: true, withFileTypes: true }).catch(() => [])).filter((e) => e.isFile()).map((e) => join(e.parentPath, e.name))].filter((k) => !k.startsWith(join(folder, 'store')))
  const isThere = async (...names: string[]): Promise<boolean[]> => await Promise.all(names.map(async (n) => (await intactRecord({ store, log }, fingerprint(n))) !== null))
  const counts = (report: GcReport) => Object.fromEntries(report.swept.map((s) => [s.kind, s.count]))

  test('keeps what a run names and all that it was made from, and removes the rest without a trace', async () => {
    await commit('corpus')
    await commit('unit')
    await commit('tokens', { parents: [fingerprint('corpus')], result: { units: [fingerprint('unit')] } })
    await commit('plan', { request: { pools: [{ tokens: refTo('tokens') }] } })
    await commit('nobody’s', { parents: [fingerprint('corpus')] })
    age()
    expect(counts(await gc({ runs: wants('plan') }))).toEqual({ results: 1 })
    expect(await isThere('corpus', 'unit', 'tokens', 'plan', 'nobody’s')).toEqual([true, true, true, true, false])
    expect(counts(await gc())).toEqual({ results: 4 })
    expect(await left()).toEqual([])
  })

  test('says without --apply exactly what it would do, and does nothing', async () => {
    await commit('nobody’s')
    await store.putIfAbsent(`data/ab/${fingerprint('unfinished')}/a1/part`, bytes('half'))
    age()
    const before = await left()
    const said = await collectGarbage(place, { olderThanMs: dayMs, apply: false })
    expect(await left()).toEqual(before)
    expect(said.swept.map((s) => [s.kind, s.count])).toEqual([['results', 1], ['unfinished work', 1]])
    expect(await gc()).toEqual({ ...said, applied: true })
  })

  test('leaves what is younger than the grace, and what that stands on', async () => {
    await commit('old')
    await commit('young', { parents: [fingerprint('old')], committedAt: new Date().toISOString() })
    await commit('other')
    await store.putIfAbsent(`data/ab/${fingerprint('unfinished')}/a1/part`, bytes('half'))
    await gc()
    expect(await isThere('old', 'young', 'other')).toEqual([true, true, false])
    expect(await store.list(`data/ab/${fingerprint('unfinished')}/`)).toHaveLength(1)
  })

  test('never touches what a running job works on or reads, and takes it when the job has long stood still', async () => {
    await commit('input')
    await commit('unit')
    const path = await job('train', 1, { isOver: false, request: { request: { corpus: refTo('input') }, units: [{ fingerprint: fingerprint('unit') }] } })
    await store.putIfAbsent(`checkpoints/ab/${fingerprint('train')}/000-000001.json`, bytes('{}'))
    await store.putIfAbsent(`data/ab/${fingerprint('train')}/a1-checkpoints/model`, bytes('weights'))
    const before = await left()
    age()
    const pulse = new Date(Date.now() + aheadMs)
    await utimes(join(path, 'request.json'), pulse, pulse)
    expect((await gc()).swept).toEqual([])
    expect(await left()).toEqual(before)

    await utimes(join(path, 'request.json'), new Date(), new Date())
    expect(counts(await gc())).toEqual({ results: 2, 'unfinished work': 1 })
    expect(await left()).toEqual([])
  })

  test('an attempt that is claimed and not yet prepared counts as running', async () => {
    await claimAttempt(store, fingerprint('train'), 0, 1, { workflow: 'w', run: 'r', key: 'k', decision: 0, runner: 'local', host: 'h', progress: '', at: '' })
    expect((await gc()).swept).toEqual([])
    expect(await store.list('claims/')).toHaveLength(1)
  })

  test('keeps the checkpoints of a phase that a run has not finished, and sweeps those of a finished one with its losing attempts', async () => {
    for (const name of ['finished', 'unfinished']) {
      await job(name, 1, { isOver: true })
      await store.putIfAbsent(`checkpoints/ab/${fingerprint(name)}/000-000001.json`, bytes('{}'))
      await store.putIfAbsent(`data/${fingerprint(name).slice(0, 2)}/${fingerprint(name)}/a1-checkpoints/model`, bytes('weights'))
    }
    await commit('finished')
    age()
    expect(counts(await gc({ runs: wants('finished', 'unfinished') }))).toEqual({ 'left beside results': 1, 'folders of ended jobs': 1 })
    expect(await isThere('finished')).toEqual([true])
    expect(await store.list('checkpoints/')).toEqual([`checkpoints/ab/${fingerprint('unfinished')}/000-000001.json`])
    expect((await store.list('data/')).filter((k) => k.includes('checkpoints'))).toEqual([expect.stringContaining(fingerprint('unfinished'))])
    // the claims of the unfinished phase lead to its ended attempt, which the next one must see
    expect((await left()).filter((k) => k.includes(fingerprint('unfinished')))).toHaveLength(5)
  })

  test('keeps what is pinned, by fingerprint or as a run with its decisions', async () => {
    await commit('plan')
    await commit('model', { parents: [fingerprint('plan')] })
    for (const run of ['one', 'two']) await store.putIfAbsent(`decisions/${run}/gate.json`, bytes('{}'))
    await pin(store, 'best', { what: 'cpt/best', fingerprints: [fingerprint('model')], decisions: ['one'], reason: 'the paper', by: 'ann', at: '' })
    age()
    expect(counts(await gc())).toEqual({ decisions: 1 })
    expect(await isThere('plan', 'model')).toEqual([true, true])
    expect(await store.list('decisions/')).toEqual(['decisions/one/gate.json'])
  })

  test('keeps what the newest committed corpus of a name names, and lets go of those before it', async () => {
    for (const name of ['monday', 'tuesday']) {
      await commit(`ingest ${name}`)
      await commit(`tokens ${name}`, { parents: [fingerprint(`ingest ${name}`)] })
      const { corpus } = CptRunSpec.parse(await overPreset(loadConfig({}), {}))
      const [text, tokens] = [refTo(`ingest ${name}`), refTo(`tokens ${name}`)]
      await commitCorpus({ store })({ name: 'web', corpus, sources: [], prepared: { pool: { corpus: text, tokens, index: tokens, topics: text, scores: tokens }, counts: [], validation: text }, committedBy: { workflowId: name, firstRunId: name } })
    }
    age()
    expect(counts(await gc())).toEqual({ results: 2 })
    expect(await isThere('ingest monday', 'tokens monday', 'ingest tuesday', 'tokens tuesday')).toEqual([false, false, true, true])
    expect(await store.list('corpora/')).toHaveLength(2)
  })

  test('keeps the digest of an object in a bucket while a run, a pin or a kept result names it', async () => {
    const note = async (name: string) => await store.putIfAbsent(`digests/${sha256(`place of ${name}`)}.json`, bytes(JSON.stringify({ sha256: sha256(name), object: `lake/${name}` })))
    for (const name of ['of the run', 'of the pin', 'of the result', 'of nobody', 'of nobody either']) await note(name)
    await store.putIfAbsent(`digests/${sha256('torn')}.json`, bytes('{'))
    await commit('corpus', { request: { sources: [{ file: { uri: 'lake:a', sha256: sha256('of the result'), bytes: 1 } }] } })
    await pin(store, 'best', { what: 'cpt/best', fingerprints: [sha256('of the pin')], decisions: [], reason: '', by: '', at: '' })
    const runs: GcPlace['runs'] = () => Promise.resolve(marksIn(`${fingerprint('corpus')} ${sha256('of the run')}`))
    expect((await gc({ runs })).swept).toEqual([])
    age()
    expect(counts(await gc({ runs }))).toEqual({ 'digests of objects': 3 })
    const left = ['of the run', 'of the pin', 'of the result'].map((name) => `digests/${sha256(`place of ${name}`)}.json`)
    expect(await store.list('digests/')).toEqual(left.sort())
    // asked for while it is swept, it stays
    let asked = 0
    expect((await gc({ runs: () => Promise.resolve(asked++ === 0 ? noMarks() : marksIn(sha256('of the run'))) })).saved).toBeGreaterThan(0)
    expect(await store.list('digests/')).toContain(`digests/${sha256('place of of the run')}.json`)
  })

  test('removes nothing when a committed corpus cannot be read', async () => {
    await commit('nobody’s')
    await store.putIfAbsent('corpora/web/000001.json', bytes('{}'))
    age()
    await expect(gc()).rejects.toThrow('corpora/web/000001.json is no record of a committed corpus')
    expect(await isThere('nobody’s')).toEqual([true])
  })

  test('keeps what a report names, also one of before reports listed it', async () => {
    await commit('listed')
    await commit('on the page')
    await commit('in no report')
    await store.putIfAbsent('decisions/one/gate.json', bytes('{}'))
    const write = async (run: string, summary: object, page: string) => {
      await mkdir(join(folder, 'reports', run), { recursive: true })
      await writeFile(join(folder, 'reports', run, 'run.json'), JSON.stringify({ workflowId: run, runId: 'r', run, startedAtMs: 1, ...summary }))
      await writeFile(join(folder, 'reports', run, 'index.html'), page)
    }
    await write('new', { fingerprints: [fingerprint('listed')], decisions: ['decisions/one/gate.json'] }, '')
    await write('old', {}, `<td>${fingerprint('on the page')}</td>`)
    age()
    await gc()
    expect(await isThere('listed', 'on the page', 'in no report')).toEqual([true, true, false])
    expect(await store.list('decisions/')).toHaveLength(1)
    await rm(join(folder, 'reports'), { recursive: true })
    await gc()
    expect(await left()).toEqual([])
  })

  test('puts back what a run asked for while it was swept', async () => {
    await commit('corpus')
    await commit('tokens', { parents: [fingerprint('corpus')] })
    await commit('other')
    age()
    const before = await store.get(`commits/${fingerprint('tokens').slice(0, 2)}/${fingerprint('tokens')}.json`)
    let asked = 0
    const report = await gc({
      runs: async () => {
        asked += 1
        // by the third asking the records are gone, and a run that had just found one goes on with it
        if (asked === 3) expect(await store.record(fingerprint('tokens'))).toBeNull()
        return asked < 3 ? noMarks() : marksIn(fingerprint('tokens'))
      },
    })
    expect([asked, report.saved]).toEqual([3, 2])
    expect(await isThere('corpus', 'tokens', 'other')).toEqual([true, true, false])
    expect(await store.get(`commits/${fingerprint('tokens').slice(0, 2)}/${fingerprint('tokens')}.json`)).toEqual(before)
  })

  test('leaves what was done anew while it was swept, and the claims that a new attempt counts on', async () => {
    await commit('anew')
    await job('anew', 1, { isOver: true })
    await job('begun', 1, { isOver: true })
    age()
    let asked = 0
    await gc({
      runs: async () => {
        asked += 1
        if (asked === 3) {
          const file = await store.write(fingerprint('anew'), 'a2', 'out.json', bytes('result of anew'))
          await commitOf(file)
          await claimAttempt(store, fingerprint('begun'), 0, 2, { workflow: 'w', run: 'r', key: 'k', decision: 0, runner: 'local', host: 'h', progress: '', at: '' })
        }
        return noMarks()
      },
    })
    expect(await isThere('anew')).toEqual([true])
    expect(await store.list(`claims/${fingerprint('begun').slice(0, 2)}/`)).toHaveLength(2)
  })
  const commitOf = (file: CommitRecord['files'][number]) =>
    store.commit({ format: 'cpt-commit/1', fingerprint: fingerprint('anew'), stage: 'filter', version: 1, request: {}, files: [file], result: {}, parents: [], attempt: 'a2', wallSeconds: 1, committedAt: new Date().toISOString() })

  test('takes nothing from under a run, however the two interleave', async () => {
    const names = Array.from({ length: 12 }, (_, i) => `work ${i}`)
    const scheduled = new Map<string, number>()
    const ask = (name: string, by: number) => scheduled.set(name, (scheduled.get(name) ?? 0) + by)
    let [rounds, swept] = [0, 0]
    const sweeping = (async () => {
      while (rounds < 40) swept += (await gc({ runs: () => Promise.resolve(marksIn([...scheduled].flatMap(([n, by]) => (by > 0 ? [fingerprint(n)] : [])).join(' '))) }, 0)).swept.find((s) => s.kind === 'results')?.count ?? 0
    })()
    const runs = ['x', 'y', 'z'].map(async (_, i) => {
      for (; rounds < 40; rounds++) {
        const name = names[(4 * i + rounds) % names.length] ?? ''
        ask(name, 1)
        // a stage: what is committed is taken, else it is done under a name of its own
        if ((await intactRecord({ store, log }, fingerprint(name))) === null) {
          const file = await store.write(fingerprint(name), `a${i}-${rounds}`, 'out.json', bytes(`result of ${name}`))
          await store.commit({ ...recordOf(name), files: [file] })
        }
        // it may be away until everyone was asked, and then it is there, with its data, as long as the run wants it
        await vi.waitFor(async () => { expect(await store.record(fingerprint(name)), `${name}, round ${rounds}`).not.toBeNull() }, { timeout: 20_000, interval: 5 })
        const held = await store.record(fingerprint(name))
        for (const file of held?.files ?? []) expect(await store.size(file.path), `${name}, round ${rounds}`).toBe(file.bytes)
        ask(name, -1)
      }
    })
    const ends = await Promise.allSettled([sweeping, ...runs])
    expect(ends.filter((e) => e.status === 'rejected')).toEqual([])
    // a race that nobody ran proves nothing
    expect(swept).toBeGreaterThan(0)
  }, 60_000)

  test.each([['at first', 1], ['before the records go', 2], ['when they are gone', 3]])('removes nothing when runs cannot be asked %s', async (_, which) => {
    await commit('nobody’s')
    age()
    let asked = 0
    const runs = (): Promise<never> | ReturnType<NonNullable<GcPlace['runs']>> => ((asked += 1) === which ? Promise.reject(new Error('no server answers')) : Promise.resolve(noMarks()))
    await expect(gc({ runs })).rejects.toThrow('no server answers')
    expect(await isThere('nobody’s')).toEqual([true])
  })

  test('removes nothing when a pin cannot be read', async () => {
    await commit('nobody’s')
    await store.putIfAbsent('pins/odd.json', bytes('{}'))
    age()
    await expect(gc()).rejects.toThrow('pins/odd.json is no pin')
    expect(await isThere('nobody’s')).toEqual([true])
  })

  test('leaves a record alone that it cannot read, and names it', async () => {
    const f = fingerprint('garbled')
    await store.putIfAbsent(`commits/${f.slice(0, 2)}/${f}.json`, bytes('not json'))
    await store.putIfAbsent(`data/${f.slice(0, 2)}/${f}/a1/out.json`, bytes('result'))
    age()
    expect((await gc()).unreadable).toEqual([f])
    expect(await store.list('')).toHaveLength(2)
  })

  test('stopped after any removal it leaves no record without its data, and the next call finishes', async () => {
    const fill = async (): Promise<void> => {
      await commit('corpus')
      await commit('tokens', { parents: [fingerprint('corpus')] })
      await job('tokens', 1, { isOver: true })
      await store.putIfAbsent(`checkpoints/ab/${fingerprint('tokens')}/000-000001.json`, bytes('{}'))
      age()
    }
    let stops = 0
    for (let survived = false; !survived; stops++) {
      await fill()
      let removals = 0
      const failing: ArtifactStore = {
        ...store,
        remove: async (key) => {
          if (removals === stops) throw new Error('stopped here')
          removals += 1
          await store.remove(key)
        },
        // a process that was killed puts nothing back either
        putIfAbsent: async (key, data) => removals === stops ? Promise.reject(new Error('stopped here')) : await store.putIfAbsent(key, data),
      }
      survived = await gc({ store: failing }).then(() => true, () => false)
      for (const key of await store.list('commits/')) {
        const record = await store.record(key.slice(-69, -5))
        for (const file of record?.files ?? []) expect(await store.size(file.path), `after ${stops} removals`).toBe(file.bytes)
      }
      age()
      await gc()
      expect(await left(), `after ${stops} removals`).toEqual([])
    }
    expect(stops).toBeGreaterThan(5)
  }, 60_000)
})

describe('gc of what lies on the disk of workers', () => {
  test('removes unfinished writes, askers of ended jobs and cached copies when they are old, and no younger ones', async () => {
    const store = places.disk()
    const config = { workDir: join(folder, 'work'), cacheDir: join(folder, 'cache'), reportsDir: join(folder, 'reports'), leaseSeconds: 60 }
    const files = { draft: `store/commits/ab/.tmp-1-x`, asker: 'work/askers/ann/x.json', waiting: 'work/askers/bob/x.json', running: 'work/jobs/ab/abx/0/1/request.json', copy: `cache/0123/data/ab/${fingerprint('swept')}/a1/out.json` }
    const write = async (): Promise<void> => {
      for (const file of Object.values(files)) {
        await mkdir(dirname(join(folder, file)), { recursive: true })
        await writeFile(join(folder, file), JSON.stringify({ job: { path: dirname(join(folder, files.running)) } }))
      }
      await writeFile(join(folder, files.asker), JSON.stringify({ job: { path: join(folder, 'work/jobs/ab/gone/0/1') } }))
    }
    const there = async () => (await readdir(folder, { recursive: true, withFileTypes: true })).filter((e) => e.isFile()).map((e) => join(e.parentPath, e.name).slice(folder.length + 1)).sort()
    const gc = () => collectGarbage({ store, config, runs: null }, { olderThanMs: dayMs, apply: true })
    await write()
    expect((await gc()).swept).toEqual([])
    expect(await there()).toEqual(Object.values(files).sort())

    const then = new Date(Date.now() - 30 * dayMs)
    for (const file of [files.draft, files.asker, files.waiting, files.copy]) await utimes(join(folder, file), then, then)
    expect((await gc()).swept.map((s) => [s.kind, s.count])).toEqual([['askers', 1], ['unfinished writes', 1], ['cached copies', 1]])
    expect(await there()).toEqual([files.waiting, files.running].sort())
  })
})
