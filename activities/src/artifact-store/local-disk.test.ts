import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { UnknownPath } from '../stage-failure.ts'
import { artifactStoreCases, type StoreBench } from './artifact-store.cases.ts'
import { localDiskStore } from './local-disk.ts'
import { refUnderRoot } from './roots.ts'

const openBench = async (): Promise<StoreBench> => {
  const root = await mkdtemp(join(tmpdir(), 'cpt-store-'))
  return {
    store: localDiskStore({ store: root }),
    environment: { CPT_STORE: root },
    damage: (path, data) => writeFile(join(root, path), data),
    everything: async () => (await readdir(root, { recursive: true, withFileTypes: true })).filter((e) => e.isFile()).map((e) => e.name),
    close: () => rm(root, { recursive: true }),
  }
}

artifactStoreCases('local disk', openBench)

describe('a reference under a configured root', () => {
  let [root, roots] = ['', {}]
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'cpt-roots-'))
    roots = { samples: join(root, 'samples') }
    await mkdir(join(root, 'samples/model'), { recursive: true })
    await writeFile(join(root, 'secret'), 'not yours')
    await writeFile(join(root, 'samples/corpus.jsonl'), '{}\n')
    await writeFile(join(root, 'samples/model/config.json'), '{}')
  })
  afterEach(() => rm(root, { recursive: true }))

  test('has digest and size of the file, and of a folder as a whole', async () => {
    expect(await refUnderRoot(roots, 'samples:corpus.jsonl')).toEqual({ uri: 'samples:corpus.jsonl', sha256: 'ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356', bytes: 3 })
    expect(await refUnderRoot(roots, 'samples:model')).toMatchObject({ uri: 'samples:model/', bytes: 2 })
  })
  test.each(['samples:../secret', 'samples:model/../../secret', 'samples:gone', 'elsewhere:corpus.jsonl'])('%s is refused', async (uri) => {
    await expect(refUnderRoot(roots, uri)).rejects.toThrow(UnknownPath)
  })
  test('a link that leads out of the root is refused, also by a store that reads it', async () => {
    await symlink(join(root, 'secret'), join(root, 'samples/link'))
    await symlink(root, join(root, 'samples/way-out'))
    const store = localDiskStore({ ...roots, store: join(root, 'store') })
    for (const uri of ['samples:link', 'samples:way-out/secret']) {
      await expect(refUnderRoot(roots, uri)).rejects.toThrow('leaves its root')
      await expect(store.localPath({ uri })).rejects.toThrow('leaves its root')
    }
  })
  test('a link that stays inside is a file like any other', async () => {
    await symlink('corpus.jsonl', join(root, 'samples/link'))
    expect((await refUnderRoot(roots, 'samples:link')).bytes).toBe(3)
  })
  test('a folder with a link in it is refused, since its digest would not cover it', async () => {
    await symlink('config.json', join(root, 'samples/model/link.json'))
    await expect(refUnderRoot(roots, 'samples:model/')).rejects.toThrow('link.json is a symbolic link')
  })
})
