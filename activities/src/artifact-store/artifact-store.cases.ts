import { createHash } from 'node:crypto'
import type { CommitRecord } from '@cpt/contracts/artifact'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { StoreCorrupt, UnknownPath } from '../stage-failure.ts'
import type { ArtifactStore } from './artifact-store.ts'

/** A store on an empty place, and what a test may do behind its back. */
export interface StoreBench {
  store: ArtifactStore
  /** Changes bytes that were written, as a failing disk would. */
  damage: (path: string, data: Uint8Array) => Promise<void>
  /** Everything that lies there, debris included. */
  everything: () => Promise<string[]>
  /** Processes that put in step: each call makes all of them put their own name at `key` and read what holds. */
  racers: (count: number) => Promise<{ put: (key: string) => Promise<{ won: boolean; read: string }[]>; close: () => Promise<void> }>
  close: () => Promise<void>
}

const bytes = (text: string): Uint8Array => Buffer.from(text)
const text = (data: Uint8Array | null): string | null => (data === null ? null : Buffer.from(data).toString('utf8'))
const sha256 = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')
const fingerprint = sha256(bytes('some request'))

export const recordOf = (files: CommitRecord['files'], over: Partial<CommitRecord> = {}): CommitRecord => ({
  format: 'cpt-commit/1', fingerprint, stage: 'ingest', version: 1, request: {}, files, result: { lines: 3 }, parents: [], attempt: 'a1', wallSeconds: 1.5, committedAt: '2026-01-01T00:00:00Z', ...over,
})

/** What holds for every artifact store. */
export const artifactStoreCases = (name: string, open: () => Promise<StoreBench>): void => {
  describe(`a store (${name})`, () => {
    let bench: StoreBench
    beforeEach(async () => {
      bench = await open()
    })
    afterEach(() => bench.close())

    test('puts a key once: the second is refused and the first stays', async () => {
      expect(await bench.store.putIfAbsent('claims/aa/1.json', bytes('first'))).toBe(true)
      expect(await bench.store.putIfAbsent('claims/aa/1.json', bytes('second'))).toBe(false)
      expect(text(await bench.store.get('claims/aa/1.json'))).toBe('first')
    })

    test('has one winner among eight processes in 150 rounds, whose bytes all of them read, and leaves no debris', { timeout: 120_000 }, async () => {
      const racers = await bench.racers(8)
      const rounds = 150
      const winners = new Set<string>()
      for (let round = 0; round < rounds; round++) {
        const answers = await racers.put(`race/${round}`)
        const held = text(await bench.store.get(`race/${round}`))
        expect(answers.filter((a) => a.won)).toHaveLength(1)
        expect(answers.map((a) => a.read)).toEqual(answers.map(() => held))
        expect(answers.find((a) => a.won)?.read).toBe(held)
        winners.add(String(held))
      }
      await racers.close()
      // one racer that always wins would mean that nothing was raced
      expect(winners.size).toBeGreaterThan(1)
      expect(await bench.everything()).toHaveLength(rounds)
    })

    test('says null for what is not there', async () => {
      expect(await bench.store.get('nothing/here')).toBeNull()
      expect(await bench.store.size('nothing/here')).toBeNull()
      expect(await bench.store.record(fingerprint)).toBeNull()
    })

    test('lists keys by prefix, sorted, across folders', async () => {
      for (const key of ['checkpoints/ab/x/000-000002.json', 'checkpoints/ab/x/000-000010.json', 'checkpoints/ab/x/000-000001.json', 'checkpoints/cd/y/000-000001.json', 'commits/ab/z.json']) await bench.store.putIfAbsent(key, bytes(key))
      expect(await bench.store.list('checkpoints/ab/')).toEqual(['checkpoints/ab/x/000-000001.json', 'checkpoints/ab/x/000-000002.json', 'checkpoints/ab/x/000-000010.json'])
      expect(await bench.store.list('checkpoints/ab/x/000-00001')).toEqual(['checkpoints/ab/x/000-000010.json'])
      expect(await bench.store.list('nothing/')).toEqual([])
      expect(await bench.store.list('')).toHaveLength(5)
    })

    test('tells size and time of everything under a prefix', async () => {
      const before = Date.now()
      await bench.store.putIfAbsent('claims/aa/1.json', bytes('four'))
      const { path } = await bench.store.write(fingerprint, 'a1', 'out/corpus.json', bytes('sixteen'))
      const [claim] = await bench.store.entries('claims/')
      expect(claim).toMatchObject({ key: 'claims/aa/1.json', bytes: 4 })
      // the store's clock need not be ours to the second
      expect(Math.abs((claim?.changedAtMs ?? 0) - before)).toBeLessThan(600_000)
      expect((await bench.store.entries('data/')).map((e) => [e.key, e.bytes])).toEqual([[path, 7]])
      expect(await bench.store.entries('nothing/')).toEqual([])
    })

    test('tells sizes and removes keys; a key removed twice is no error, and may be put again', async () => {
      await bench.store.putIfAbsent('k', bytes('four'))
      expect(await bench.store.size('k')).toBe(4)
      await bench.store.remove('k')
      await bench.store.remove('k')
      expect(await bench.store.get('k')).toBeNull()
      expect(await bench.store.putIfAbsent('k', bytes('again'))).toBe(true)
    })

    test('keeps empty and binary data as they are', async () => {
      const odd = Uint8Array.from({ length: 256 }, (_, i) => i)
      await bench.store.putIfAbsent('empty', new Uint8Array())
      await bench.store.putIfAbsent('odd', odd)
      expect(await bench.store.size('empty')).toBe(0)
      expect(Buffer.from((await bench.store.get('odd')) ?? []).equals(odd)).toBe(true)
    })

    describe('a commit', () => {
      const written = async (content = '{"rows":3}') => await bench.store.write(fingerprint, 'a1', 'out/corpus.json', bytes(content))

      test('makes a file readable by reference, and nothing does before it', async () => {
        const file = await written()
        const ref = { uri: `store:${fingerprint}/out/corpus.json`, sha256: file.sha256, bytes: file.bytes }
        await expect(bench.store.read(ref)).rejects.toThrow(UnknownPath)
        await bench.store.commit(recordOf([file]))
        expect(text(await bench.store.read(ref))).toBe('{"rows":3}')
      })

      test('is won once: the loser gets the winner’s record', async () => {
        const first = recordOf([await written()])
        const second = { ...first, attempt: 'a2', result: { lines: 4 } }
        expect(await bench.store.commit(first)).toEqual(first)
        expect(await bench.store.commit(second)).toEqual(first)
        expect(await bench.store.record(fingerprint)).toEqual(first)
      })

      test('names only files that were in it', async () => {
        await bench.store.commit(recordOf([await written()]))
        await expect(bench.store.read({ uri: `store:${fingerprint}/out/other.json`, sha256: fingerprint, bytes: 1 })).rejects.toThrow(`the commit has no file out/other.json`)
      })

      test('whose bytes changed is not read: the digest says so', async () => {
        const file = await written()
        await bench.store.commit(recordOf([file]))
        await bench.damage(file.path, bytes('{"rows":4}'))
        await expect(bench.store.read({ uri: `store:${fingerprint}/out/corpus.json`, sha256: file.sha256, bytes: file.bytes })).rejects.toThrow(StoreCorrupt)
      })

      test('whose file is gone is damaged, not unknown', async () => {
        const file = await written()
        await bench.store.commit(recordOf([file]))
        await bench.store.remove(file.path)
        await expect(bench.store.read({ uri: `store:${fingerprint}/out/corpus.json`, sha256: file.sha256, bytes: file.bytes })).rejects.toThrow(StoreCorrupt)
      })

      test.each(['{"format": "cpt-commit/1"', '{}', ''])('whose record reads %j is damaged, and named', async (content) => {
        await bench.store.commit(recordOf([]))
        await bench.damage(`commits/${fingerprint.slice(0, 2)}/${fingerprint}.json`, bytes(content))
        await expect(bench.store.record(fingerprint)).rejects.toThrow(StoreCorrupt)
        await expect(bench.store.record(fingerprint)).rejects.toThrow(fingerprint)
      })

      test('holds a manifest as it was written', async () => {
        const manifest = { format: 'cpt-manifest/1' as const, kind: 'corpus', shards: [{ commit: fingerprint, name: 's', sha256: fingerprint, bytes: 1, rows: 2 }] }
        const file = await written(JSON.stringify(manifest))
        await bench.store.commit(recordOf([file]))
        expect(await bench.store.manifest({ uri: `store:${fingerprint}/out/corpus.json`, sha256: file.sha256, bytes: file.bytes })).toEqual(manifest)
      })

      test('never writes over another attempt’s file', async () => {
        await written()
        await expect(written('other')).rejects.toThrow()
        expect((await bench.store.write(fingerprint, 'a2', 'out/corpus.json', bytes('other'))).path).not.toBe((await bench.store.list('data/'))[0])
      })
    })

    test.each(['../outside', 'a/../../outside', '/etc/hostname', 'commits/../../outside'])('refuses the key %s, which leaves the store', async (key) => {
      await expect(bench.store.get(key)).rejects.toThrow(UnknownPath)
      await expect(bench.store.putIfAbsent(key, bytes('x'))).rejects.toThrow(UnknownPath)
      await expect(bench.store.remove(key)).rejects.toThrow(UnknownPath)
    })

    test.each([`store:${fingerprint}/../x`, 'nowhere:x', 'store:short/x'])('refuses the reference %s', async (uri) => {
      await bench.store.commit(recordOf([]))
      await expect(bench.store.read({ uri, sha256: fingerprint, bytes: 1 })).rejects.toThrow(UnknownPath)
    })
  })
}
