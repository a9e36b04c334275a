import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ShardEntry } from '@cpt/contracts/artifact'
import type { FailureEvidence } from '@cpt/contracts/failures'
import type { JobUnit } from '@cpt/contracts/job'
import type { Stage } from '@cpt/contracts/stage'
import { stages } from '@cpt/contracts/stages'
import { ApplicationFailure } from '@temporalio/common'
import fc from 'fast-check'
import pino from 'pino'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { localDiskStore } from './artifact-store/local-disk.ts'
import type { Deps } from './deps.ts'
import { sha256 } from './identity.ts'
import { addCounts, mergeUnits } from './merge-units.ts'
import { intactRecord } from './run-stage.ts'

describe('adding counts up', () => {
  test('sums by key at every depth, and keeps keys that only one side has', () => {
    expect(addCounts({ lines: 2, byReason: { short: 1 } }, { lines: 3, byReason: { short: 2, garbled: 1 } })).toEqual({ lines: 5, byReason: { short: 3, garbled: 1 } })
    expect(addCounts(undefined, { lines: 1 })).toEqual({ lines: 1 })
  })
  test('takes the names that documents bring as they are', () => {
    expect(addCounts({ byLanguage: { en: 1 } }, { byLanguage: { constructor: 2, toString: 1 } })).toEqual({ byLanguage: { en: 1, constructor: 2, toString: 1 } })
  })
  test('refuses a count that is a record elsewhere', () => {
    expect(() => addCounts({ lines: 1 }, { lines: { zh: 1 } })).toThrow(TypeError)
  })
  test('does not depend on the order of units', () => {
    const counts = fc.record({ lines: fc.nat(), byReason: fc.dictionary(fc.constantFrom('a', 'b', 'constructor'), fc.nat()) })
    fc.assert(
      fc.property(counts, counts, counts, (a, b, c) => {
        expect(addCounts(addCounts(a, b), c)).toEqual(addCounts(a, addCounts(b, c)))
        expect(addCounts(a, b)).toEqual(addCounts(b, a))
      }),
    )
  })
})

describe('merging the units of a stage', () => {
  let root = ''
  let deps: Deps
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'cpt-merge-'))
    deps = { store: localDiskStore({ store: root }), log: pino({ level: 'silent' }) } as unknown as Deps
  })
  afterEach(() => rm(root, { recursive: true }))

  const ingest: Stage = stages.ingest
  const fingerprint = sha256('the stage')
  /** Commits a unit as its job would. */
  const unit = async (index: number, name: string, lines: number, quarantined: number): Promise<JobUnit> => {
    const own = sha256(`unit ${name}`)
    const files = await Promise.all(['corpus', 'quarantine'].map((kind) => deps.store.write(own, 'a1', `${kind}.parquet`, Buffer.from(`${kind} of ${name}`))))
    const shard = (i: number): ShardEntry => ({ commit: own, name: files[i]!.name, sha256: files[i]!.sha256, bytes: files[i]!.bytes, rows: lines - quarantined })
    await deps.store.commit({
      format: 'cpt-commit/1', fingerprint: own, stage: 'ingest', version: 1, request: {}, files, parents: [], attempt: 'a1', wallSeconds: 2, committedAt: '2026-01-01T00:00:00Z',
      result: {
        outputs: { corpus: [shard(0)], quarantine: [shard(1)] },
        counts: { lines, kept: lines - quarantined, quarantined, keptBytes: 10, byReason: quarantined > 0 ? { 'not-json': quarantined } : {}, bySource: { [name]: lines }, byLanguage: { zh: lines - quarantined } },
        examples: Array.from({ length: Math.min(quarantined, 10) }, (_, i) => ({ line: i + 1, offset: 100 * i, reason: 'not-json' })),
      },
    })
    return { index, fingerprint: own, inputs: { sources: { name } } }
  }
  const merge = (units: JobUnit[], maxQuarantineRatio: number) => mergeUnits(deps, ingest, fingerprint, { sources: [], maxQuarantineRatio }, units)

  test('gives one manifest a kind of output, in the order of units, and the sums', async () => {
    const units = [await unit(0, 'zh', 100, 1), await unit(1, 'constructor', 50, 0)]
    const record = await merge(units, 0.01)
    const result = stages.ingest.result.parse(record.result)
    expect(result.counts).toEqual({ lines: 150, kept: 149, quarantined: 1, keptBytes: 20, byReason: { 'not-json': 1 }, bySource: { zh: 100, constructor: 50 }, byLanguage: { zh: 149 } })
    const { shards, kind } = await deps.store.manifest(result.corpus)
    expect([kind, ...shards.map((s) => s.commit)]).toEqual(['corpus', ...units.map((u) => u.fingerprint)])
    expect(await intactRecord(deps, fingerprint)).toEqual(record)
    // the bytes of a manifest are the identity of all that is made from it: these never change
    expect([result.corpus.sha256, result.quarantine.sha256]).toEqual(['81ad9f7afad158ec5563c1de230f9f25a689fc692b70ecee3b16c81535d7dea7', '1020c39ba9ea77d38017b47b23092c9444ba127afd3dc7019bbc5c3b07b32a23'])
  })

  test('keeps what all units say alike, once', async () => {
    const commits = await Promise.all([0, 1].map(async (index) => {
      const own = sha256(`alike ${index}`)
      await deps.store.commit({ format: 'cpt-commit/1', fingerprint: own, stage: 'decontaminate', version: 2, request: {}, files: [], parents: [], attempt: 'a1', wallSeconds: 2, committedAt: '2026-01-01T00:00:00Z',
        result: { outputs: { verdicts: [] }, counts: { docs: 2 }, alike: { benchmarks: { sums: { items: 3 } } } } })
      return { index, fingerprint: own, inputs: {} }
    }))
    const record = await mergeUnits(deps, stages.decontaminate, fingerprint, {}, commits)
    expect(record.result).toMatchObject({ counts: { docs: 4 }, benchmarks: { sums: { items: 3 } } })
  })

  test('is committed once: a second merge gets the first', async () => {
    const units = [await unit(0, 'zh', 3, 0)]
    expect(await merge(units, 1)).toEqual(await merge(units, 1))
  })

  test('fails where a unit was committed and its record is gone', async () => {
    await expect(merge([{ index: 4, fingerprint: sha256('never'), inputs: {} }], 1)).rejects.toThrow('shard 4 was committed, and its record is gone')
  })

  test('allows as much quarantined as the limit says, exactly', async () => {
    await expect(merge([await unit(0, 'zh', 1000, 1)], 0.001)).resolves.toBeDefined()
  })

  test('refuses more, with the first ten by source, line and byte, and commits nothing', async () => {
    const units = [await unit(0, 'zh', 100, 6), { ...(await unit(1, 'en', 100, 7)), inputs: { sources: { name: 'en', part: '2026/a.jsonl' } } }]
    const failure: unknown = await merge(units, 0.001).then(() => null, (e: unknown) => e)
    expect(failure).toBeInstanceOf(ApplicationFailure)
    expect(failure).toMatchObject({ type: 'TooMuchQuarantined', nonRetryable: true, message: expect.stringContaining('13 of 200 lines (6.50 %) could not be read, allowed are 0.1 %') })
    const { logTail } = (failure as ApplicationFailure).details?.[0] as FailureEvidence
    expect(logTail).toHaveLength(10)
    expect([logTail[0], logTail[6]]).toEqual(['zh line 1 (byte 0): not-json', 'en/2026/a.jsonl line 1 (byte 0): not-json'])
    expect(await deps.store.record(fingerprint)).toBeNull()
  })

  describe('documents without a finite loss', () => {
    const scorePpl: Stage = stages.scorePpl
    const scored = async (index: number, docs: number, lost: number[], nll: number): Promise<JobUnit> => {
      const own = sha256(`scores ${index}`)
      const file = await deps.store.write(own, 'a1', 'scores.parquet', Buffer.from(`scores of ${index}`))
      const place = (row: number) => ({ shard: index, row })
      const ranked = [{ ...place(0), nll, tokens: 30 }, { ...place(1), nll: nll + 0.5, tokens: 30 }]
      await deps.store.commit({
        format: 'cpt-commit/1', fingerprint: own, stage: 'score-ppl', version: 2, request: {}, files: [file], parents: [], attempt: 'a1', wallSeconds: 1, committedAt: '2026-01-01T00:00:00Z',
        result: {
          outputs: { scores: [{ commit: own, name: 'scores.parquet', sha256: file.sha256, bytes: file.bytes, rows: docs }] },
          counts: { docs, scored: docs - lost.length, nonFinite: lost.length, scoredTokens: 100, sumNllNats: 400, pplHistogram: { 32: docs - lost.length }, nllHistogram: { 200: docs - lost.length } },
          extremes: { highest: ranked.toReversed(), lowest: ranked, nonFinite: lost.map(place) },
        },
      })
      return { index, fingerprint: own, inputs: {} }
    }
    const units = () => Promise.all([scored(0, 500, [3], 4), scored(1, 500, [8, 9], 5)])
    const judged = async (maxNonFiniteRatio: number) => mergeUnits(deps, scorePpl, fingerprint, { maxNonFiniteRatio }, await units())

    test('are named up to the limit, with the extremes of all shards in order', async () => {
      const { extremes, counts } = stages.scorePpl.result.parse((await judged(0.003)).result)
      expect(extremes?.nonFinite).toEqual([{ shard: 0, row: 3 }, { shard: 1, row: 8 }, { shard: 1, row: 9 }])
      expect(extremes?.highest.map((e) => e.nll)).toEqual([5.5, 5, 4.5, 4])
      expect(extremes?.lowest.map((e) => e.nll)).toEqual([4, 4.5, 5, 5.5])
      expect(counts.nllHistogram).toEqual({ 200: 997 })
    })
    test('over it park the stage with the first of them, and commit nothing', async () => {
      await expect(judged(0.002)).rejects.toMatchObject({ type: 'BadData', nonRetryable: true, message: expect.stringContaining('3 of 1000 documents have no finite loss, allowed are 0.2 % (maxNonFiniteRatio). The first: shard 0 row 3 · shard 1 row 8 · shard 1 row 9.') })
      expect(await deps.store.record(fingerprint)).toBeNull()
    })
  })

  describe('a committed result is a hit', () => {
    const files = async () => (await deps.store.list('data/')).filter((f) => f.endsWith('.parquet'))

    test('only while its own data are there: else the record goes, and the work is done again', async () => {
      await merge([await unit(0, 'zh', 3, 0)], 1)
      const manifest = (await deps.store.list(`data/${fingerprint.slice(0, 2)}/${fingerprint}`))[0]!
      await deps.store.remove(manifest)
      expect(await intactRecord(deps, fingerprint)).toBeNull()
      expect(await deps.store.record(fingerprint)).toBeNull()
    })
    test('only while the data of all its units are there, and the other units stay committed', async () => {
      const units = [await unit(0, 'zh', 3, 0), await unit(1, 'en', 3, 0)]
      await merge(units, 1)
      await deps.store.remove((await files()).find((f) => f.includes(units[0]!.fingerprint))!)
      expect(await intactRecord(deps, fingerprint)).toBeNull()
      expect(await deps.store.record(units[0]!.fingerprint)).toBeNull()
      expect(await deps.store.record(units[1]!.fingerprint)).not.toBeNull()
    })
    test('not where a file was cut short', async () => {
      await merge([await unit(0, 'zh', 3, 0)], 1)
      const [path] = await files()
      await deps.store.remove(path!)
      await deps.store.putIfAbsent(path!, Buffer.from('cut'))
      expect(await intactRecord(deps, fingerprint)).toBeNull()
    })
    test('not where nothing was ever committed', async () => {
      expect(await intactRecord(deps, sha256('never'))).toBeNull()
    })
  })
})
