import { createHash } from 'node:crypto'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointRecord, type CommitRecord } from '@cpt/contracts/artifact'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { treeDigest } from '../identity.ts'
import { intactRecord } from '../run-stage.ts'
import { StoreCorrupt, UnknownPath } from '../stage-failure.ts'
import type { ArtifactStore } from './artifact-store.ts'
import { probePutIfAbsent } from './probe.ts'
import { raceForKeys } from './race.ts'

/** A store on an empty place, and what a test may do behind its back. */
export interface StoreBench {
  store: ArtifactStore
  /** What a process needs in its environment to use this store. */
  environment: Record<string, string>
  /** Changes bytes that were written, as a failing disk would. */
  damage: (path: string, data: Uint8Array) => Promise<void>
  /** Everything that lies there, debris included. */
  everything: () => Promise<string[]>
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

    test('has one winner among eight processes of both languages in each of 500 rounds, all read its bytes, and no debris is left', { timeout: 300_000 }, async () => {
      const rounds = 500
      const race = await raceForKeys(bench.environment, { rounds, processes: 8 })
      expect(race).toMatchObject({ winnersPerRound: { 1: rounds }, misreadRounds: 0 })
      // one racer that always wins would mean that nothing was raced
      expect(race.distinctWinners).toBeGreaterThan(1)
      expect(await bench.everything()).toHaveLength(rounds)
    })

    test('passes the probe of cpt doctor, which leaves nothing behind', async () => {
      expect(await probePutIfAbsent(bench.store)).toBeNull()
      expect(await bench.everything()).toEqual([])
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

      test('is a hit only while all its data are there: else the record goes, and the work can be done again', async () => {
        const [kept, lost] = [await written(), await bench.store.write(fingerprint, 'a1', 'out/rows.parquet', bytes('rows'))]
        const log = pino({ level: 'silent' })
        await bench.store.commit(recordOf([kept, lost]))
        expect(await intactRecord({ store: bench.store, log }, fingerprint)).toEqual(recordOf([kept, lost]))
        await bench.damage(lost.path, bytes('row'))
        expect(await intactRecord({ store: bench.store, log }, fingerprint)).toBeNull()
        expect(await bench.store.record(fingerprint)).toBeNull()
        const rows = await bench.store.write(fingerprint, 'a2', 'out/rows.parquet', bytes('rows'))
        const again = recordOf([rows], { attempt: 'a2' })
        expect(await bench.store.commit(again)).toEqual(again)
        await bench.store.remove(rows.path)
        expect(await intactRecord({ store: bench.store, log }, fingerprint)).toBeNull()
      })

      test('lies on this machine for whoever needs a path: a file, and a folder with all of its files', async () => {
        const files = [await bench.store.write(fingerprint, 'a1', 'model/config.json', bytes('{}')), await bench.store.write(fingerprint, 'a1', 'model/deep/weights', bytes('weights')), await written()]
        await bench.store.commit(recordOf(files))
        expect(await readFile(await bench.store.localPath({ uri: `store:${fingerprint}/out/corpus.json` }), 'utf8')).toBe('{"rows":3}')
        const folder = await bench.store.localPath({ uri: `store:${fingerprint}/model/` })
        expect((await readdir(folder, { recursive: true })).sort()).toEqual(['config.json', 'deep', 'deep/weights'])
        expect(await readFile(join(folder, 'deep/weights'), 'utf8')).toBe('weights')
        await expect(bench.store.localPath({ uri: `store:${fingerprint}/other/` })).rejects.toThrow(UnknownPath)
      })

      test('has no path on this machine once its file is gone or shorter', async () => {
        const [gone, shorter] = [await written(), await bench.store.write(fingerprint, 'a1', 'out/rows', bytes('rows'))]
        await bench.store.commit(recordOf([gone, shorter]))
        await bench.store.remove(gone.path)
        await bench.damage(shorter.path, bytes('row'))
        for (const name of ['corpus.json', 'rows', '']) await expect(bench.store.localPath({ uri: `store:${fingerprint}/out/${name}` })).rejects.toThrow(StoreCorrupt)
      })

      test('may be the input of another run: a reference to its file or folder comes from the record', async () => {
        const files = [await bench.store.write(fingerprint, 'a1', 'model/b', bytes('b')), await bench.store.write(fingerprint, 'a1', 'model/a', bytes('aa'))]
        await bench.store.commit(recordOf(files))
        expect(await bench.store.refTo(`store:${fingerprint}/model/a`)).toEqual({ uri: `store:${fingerprint}/model/a`, sha256: sha256(bytes('aa')), bytes: 2 })
        expect(await bench.store.refTo(`store:${fingerprint}/model/`)).toEqual({ uri: `store:${fingerprint}/model/`, sha256: treeDigest([{ name: 'a', sha256: sha256(bytes('aa')) }, { name: 'b', sha256: sha256(bytes('b')) }]), bytes: 3 })
        await expect(bench.store.refTo(`store:${fingerprint}/none`)).rejects.toThrow(UnknownPath)
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

    describe('a chain of checkpoints', () => {
      const folder = `checkpoints/${fingerprint.slice(0, 2)}/${fingerprint}/`
      const save = async (branch: number, seq: number, parent: string | null, attempt = 'a1') => {
        const name = `${String(branch).padStart(3, '0')}-${String(seq).padStart(6, '0')}`
        const file = await bench.store.write(fingerprint, `${attempt}-checkpoints`, `${name}/model.safetensors`, bytes(`weights ${branch} ${seq} ${attempt}`))
        const record = CheckpointRecord.parse({ format: 'cpt-checkpoint/1', fingerprint, branch, seq, parent, step: seq, tokens: 4096 * seq, files: [file], state: {}, attempt, committedAt: '2026-01-01T00:00:00Z' })
        const data = Buffer.from(JSON.stringify(record))
        return { won: await bench.store.putIfAbsent(`${folder}${name}.json`, data), sha256: sha256(data) }
      }
      const chain = async () => Promise.all((await bench.store.list(folder)).map(async (key) => {
        const data = (await bench.store.get(key)) ?? new Uint8Array()
        return { key: key.slice(folder.length), sha256: sha256(data), record: CheckpointRecord.parse(JSON.parse(Buffer.from(data).toString('utf8'))) }
      }))

      test('is read in the order it was written, each record naming the bytes of the one before', async () => {
        let parent: string | null = null
        for (const seq of [1, 2, 3, 9, 10]) parent = (await save(0, seq, parent)).sha256
        const found = await chain()
        expect(found.map((c) => c.record.seq)).toEqual([1, 2, 3, 9, 10])
        expect(found.map((c) => c.record.parent)).toEqual([null, ...found.slice(0, -1).map((c) => c.sha256)])
      })

      test('goes on under the next branch after a rollback, which is then the newest, whatever number it has', async () => {
        const first = await save(0, 1, null)
        const second = await save(0, 2, first.sha256)
        await save(0, 3, second.sha256)
        const beside = await save(1, 2, first.sha256, 'a2')
        expect((await bench.store.list(folder)).at(-1)).toBe(`${folder}001-000002.json`)
        expect((await chain()).filter((c) => c.record.parent === first.sha256).map((c) => c.sha256)).toEqual([second.sha256, beside.sha256])
      })

      test('gives each name once: an attempt that comes late to it is told so and reads what holds', async () => {
        const first = await save(0, 1, null)
        expect(await save(0, 1, null, 'a2')).toMatchObject({ won: false })
        expect((await chain()).map((c) => [c.sha256, c.record.attempt])).toEqual([[first.sha256, 'a1']])
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
