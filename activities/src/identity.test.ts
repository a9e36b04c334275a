import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ShardEntry } from '@cpt/contracts/artifact'
import { Placement } from '@cpt/contracts/job'
import type { Stage } from '@cpt/contracts/stage'
import { stages } from '@cpt/contracts/stages'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { refUnderRoot } from './artifact-store/roots.ts'
import { canonical, fingerprintOf, parentsOf, sha256, treeDigest, unitsOf } from './identity.ts'

const home = fileURLToPath(new URL('../../', import.meta.url))
const fixtures = join(home, 'contracts/fixtures')
const golden = (name: string): Record<string, unknown> => JSON.parse(readFileSync(join(fixtures, `jobs/${name}.json`), 'utf8')) as Record<string, unknown>
const all: Stage[] = Object.values(stages)

const ref = (uri: string, content = uri) => ({ uri, sha256: sha256(content), bytes: content.length })
const digest = (c: string) => c.repeat(64)
const reversed = (v: unknown): unknown =>
  Array.isArray(v) ? v.map(reversed) : typeof v === 'object' && v !== null ? Object.fromEntries(Object.entries(v).reverse().map(([k, x]) => [k, reversed(x)])) : v
const isRef = (v: object): boolean => 'sha256' in v && 'uri' in v && 'bytes' in v
const moved = (v: unknown): unknown => {
  if (Array.isArray(v)) return v.map(moved)
  if (typeof v !== 'object' || v === null) return v
  return isRef(v) ? { ...v, uri: 'elsewhere:file', bytes: 7 } : Object.fromEntries(Object.entries(v).map(([k, x]) => [k, moved(x)]))
}
/** The request with one leaf changed, for every leaf that is not the place of a reference. */
const changes = (v: unknown, inRef = false): unknown[] => {
  if (Array.isArray(v)) return [[...(v as unknown[]), 'one more'], ...v.flatMap((x, i) => changes(x).map((c) => v.with(i, c) as unknown))]
  if (typeof v === 'object' && v !== null) {
    return Object.entries(v).flatMap(([k, x]) => (isRef(v) && k !== 'sha256' ? [] : changes(x, isRef(v)).map((c) => ({ ...v, [k]: c }))))
  }
  if (inRef) return [digest('0')]
  return [typeof v === 'number' ? v + 1 : typeof v === 'boolean' ? !v : typeof v === 'string' ? `${v}x` : 'something']
}

describe.each(all.map((s) => [s.name, s] as const))('the fingerprint of %s', (name, stage) => {
  const request = golden(name)
  const mine = fingerprintOf(stage, request)

  test('does not change with the order of keys', () => {
    expect(fingerprintOf(stage, reversed(request))).toBe(mine)
  })
  test('does not change with where references lie', () => {
    expect(fingerprintOf(stage, moved(request))).toBe(mine)
  })
  test('changes with every other field, with the stage and with its version', () => {
    const others = [...changes(request).map((r) => fingerprintOf(stage, r)), fingerprintOf({ ...stage, version: stage.version + 1 }, request), fingerprintOf({ ...stage, name: `${name}-2` }, request)]
    expect(new Set([mine, ...others]).size).toBe(others.length + 1)
  })
  test('is the recorded one: results that are committed stay valid', () => {
    const recorded: Record<string, string> = JSON.parse(readFileSync(join(fixtures, 'fingerprints.json'), 'utf8'))
    // append only: a new version of a stage is a new line, an existing line never changes
    expect(recorded).toHaveProperty([`${name}/${stage.version}`], mine)
    for (const [key, fingerprint] of Object.entries(recorded)) {
      const [of, version] = key.split('/')
      if (of === name) expect(fingerprintOf({ name, version: Number(version) }, request)).toBe(fingerprint)
    }
  })
})

test('every recorded fingerprint belongs to a stage', () => {
  const recorded: Record<string, string> = JSON.parse(readFileSync(join(fixtures, 'fingerprints.json'), 'utf8'))
  expect(Object.keys(recorded).filter((key) => !all.some((s) => key.startsWith(`${s.name}/`)))).toEqual([])
})

const mapped = all.filter((s) => s.shape.kind === 'map')
describe.each(mapped.map((s) => [s.name, s] as const))('the units of %s', (name, stage) => {
  const request = golden(name)
  /** Two shards to every manifest, told apart by its digest. */
  const twoShards = (manifest: { sha256: string }): Promise<ShardEntry[]> => Promise.resolve([0, 1].map((i) => ({ commit: digest('c'), name: `part-${i}`, sha256: sha256(`${manifest.sha256}/${i}`), bytes: 100, rows: 10 })))
  const fingerprintsOf = async (r: Record<string, unknown>, s: Stage = stage) => (await unitsOf(s, r, twoShards)).map((u) => u.fingerprint)
  const over = stage.shape.kind === 'whole' ? [] : 'items' in stage.shape ? [stage.shape.items] : stage.shape.manifests
  const stageOnly = stage.shape.kind === 'whole' ? [] : (stage.shape.stageOnly ?? [])

  test('are the recorded ones: shards that are committed stay valid', async () => {
    const recorded: Record<string, string[]> = JSON.parse(readFileSync(join(fixtures, 'unit-fingerprints.json'), 'utf8'))
    expect(recorded).toHaveProperty([`${name}/${stage.version}`])
    for (const [key, fingerprints] of Object.entries(recorded)) {
      const [of, version] = key.split('/')
      if (of === name) expect(await fingerprintsOf(request, { ...stage, version: Number(version) })).toEqual(fingerprints)
    }
  })
  test('move with every field but what they are cut over and what judges the whole', async () => {
    const mine = await fingerprintsOf(request)
    for (const [key, value] of Object.entries(request)) {
      if (over.includes(key)) continue
      for (const changed of changes(value)) {
        const theirs = await fingerprintsOf({ ...request, [key]: changed })
        expect(theirs.filter((f) => mine.includes(f)), `${name}: ${key} = ${JSON.stringify(changed)}`).toEqual(stageOnly.includes(key) ? mine : [])
      }
    }
  })
  test('are not the stage itself, nor a unit of another version', async () => {
    const [mine, raised] = await Promise.all([fingerprintsOf(request), fingerprintsOf(request, { ...stage, version: stage.version + 1 })])
    expect(new Set([...mine, ...raised, fingerprintOf(stage, request)]).size).toBe(mine.length + raised.length + 1)
  })
})

describe('canonical form', () => {
  test('an absent field and an undefined one are the same', () => {
    expect(canonical({ a: 1, b: undefined })).toBe(canonical({ a: 1 }))
  })
  test('numbers and keys are written as RFC 8785 says', () => {
    expect(canonical({ b: 1e21, a: [0.1, -0, 1.0], 'é': 'ö\n' })).toBe('{"a":[0.1,0,1],"b":1e+21,"é":"ö\\n"}')
  })
  test.each([NaN, Infinity, undefined, () => 1])('%s has none', (value) => {
    expect(() => canonical(value)).toThrow()
  })
  test('it survives JSON: what a worker reads back has the same fingerprint', () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => { expect(canonical(JSON.parse(JSON.stringify(value)))).toBe(canonical(value)) }))
  })
})

describe('what is identity and what is placement', () => {
  const placement = Object.keys(Placement.shape)
  /** Names of all fields of a request, at every depth, by its JSON Schema. */
  const fieldsOf = (schema: unknown): string[] => {
    if (Array.isArray(schema)) return schema.flatMap(fieldsOf)
    if (typeof schema !== 'object' || schema === null) return []
    const own = 'properties' in schema ? Object.keys(schema.properties as object) : []
    return [...own, ...Object.values(schema).flatMap(fieldsOf)]
  }
  test.each(all.map((s) => [s.name, s] as const))('no field of %s has a name that placement has: each is declared once', (_, stage) => {
    const fields = fieldsOf(z.toJSONSchema(stage.request, { io: 'input' }))
    expect(fields.length).toBeGreaterThan(0)
    expect(fields.filter((name) => placement.includes(name))).toEqual([])
  })
  test('placement is refused where identity is expected, at every stage', () => {
    for (const stage of all) {
      for (const field of placement) expect(stage.request.safeParse({ ...golden(stage.name), [field]: 1 }).success, `${stage.name}.${field}`).toBe(false)
    }
  })
})

test('parents are the commits that a request refers to, each once', () => {
  const [a, b] = [digest('a'), digest('b')]
  expect(parentsOf({ corpus: ref(`store:${b}/corpus.json`), drops: [ref(`store:${a}/v.json`), ref(`store:${b}/w/`)], tokenizer: ref('samples:base/tokenizer.json') })).toEqual([a, b])
})

describe('the digest of a folder', () => {
  test('is the same in TypeScript and Python, whatever the names', async () => {
    const root = mkdtempSync(join(tmpdir(), 'cpt-tree-'))
    try {
      // UTF-16 and code points sort the last two differently
      const names = ['b.txt', 'a/z.txt', 'a.txt', 'a/b/c.txt', 'Ä.txt', '中.txt', 'ﬀ.txt', '😀.txt']
      for (const name of names) {
        mkdirSync(dirname(join(root, 'model', name)), { recursive: true })
        writeFileSync(join(root, 'model', name), `content of ${name}`)
      }
      const script = 'import json,sys;from pathlib import Path;from cpt_ml.store import tree_digest,sha256_file;b=Path(sys.argv[1]);print(tree_digest([(p.relative_to(b).as_posix(),sha256_file(p)) for p in b.rglob("*") if p.is_file()]))'
      const python = execFileSync(join(home, 'ml/.venv/bin/python'), ['-c', script, join(root, 'model')], { cwd: join(home, 'ml'), encoding: 'utf8' }).trim()
      expect(treeDigest(names.map((name) => ({ name, sha256: sha256(`content of ${name}`) })))).toBe(python)
      expect((await refUnderRoot({ models: root }, 'models:model/')).sha256).toBe(python)
    } finally {
      rmSync(root, { recursive: true })
    }
  })
  test('does not depend on the order of files, and does on names and contents', () => {
    const files = [{ name: 'a', sha256: digest('1') }, { name: 'b', sha256: digest('2') }]
    expect(treeDigest(files.toReversed())).toBe(treeDigest(files))
    expect(treeDigest([{ name: 'a', sha256: digest('2') }, { name: 'b', sha256: digest('1') }])).not.toBe(treeDigest(files))
  })
})

describe('the units of a map stage', () => {
  const shard = (name: string, rows = 10): ShardEntry => ({ commit: digest('c'), name, sha256: sha256(name), bytes: 100, rows })
  const shardsOf = (manifests: Record<string, ShardEntry[]>) => (r: { uri: string }) => Promise.resolve(manifests[r.uri] ?? [])
  const tokenizer = ref('samples:base/tokenizer.json')
  const request = { corpus: ref('c:corpus'), drops: [ref('c:filter'), ref('c:dedup')], tokenizer }
  const columns = (n: number) => ({ 'c:corpus': Array.from({ length: n }, (_, i) => shard(`corpus-${i}`)), 'c:filter': Array.from({ length: n }, (_, i) => shard(`filter-${i}`)), 'c:dedup': Array.from({ length: n }, (_, i) => shard(`dedup-${i}`)) })

  test('one more shard adds one unit and leaves the others as they were', async () => {
    const [three, four] = await Promise.all([3, 4].map((n) => unitsOf(stages.tokenize, { ...request, corpus: ref('c:corpus', String(n)) }, shardsOf(columns(n)))))
    expect(four!.slice(0, 3)).toEqual(three)
    expect(new Set(four!.map((u) => u.fingerprint)).size).toBe(4)
  })
  test('each gets its row of every manifest, lists as lists', async () => {
    const [, second] = await unitsOf(stages.tokenize, request, shardsOf(columns(2)))
    expect(second?.inputs).toEqual({ corpus: shard('corpus-1'), drops: [shard('filter-1'), shard('dedup-1')] })
  })
  test('a setting, another verdict and another order of verdicts are other work', async () => {
    const fingerprintsOf = async (r: Record<string, unknown>, c = columns(1)) => (await unitsOf(stages.tokenize, r, shardsOf(c))).map((u) => u.fingerprint)
    const variants = await Promise.all([
      fingerprintsOf(request),
      fingerprintsOf({ ...request, tokenizer: ref('samples:base/tokenizer.json', 'another') }),
      fingerprintsOf({ ...request, drops: [...request.drops].reverse() }),
      fingerprintsOf(request, { ...columns(1), 'c:dedup': [shard('dedup-other')] }),
    ])
    expect(new Set(variants.flat()).size).toBe(4)
  })
  test('a field that judges the whole is not part of a unit', async () => {
    const source = { name: 'zh', file: ref('samples:zh') }
    const units = await Promise.all([0.1, 0.2].map((maxQuarantineRatio) => unitsOf(stages.ingest, { sources: [source], maxQuarantineRatio }, shardsOf({}))))
    expect(units[0]).toEqual(units[1])
    expect(fingerprintOf(stages.ingest, { sources: [source], maxQuarantineRatio: 0.1 })).not.toBe(fingerprintOf(stages.ingest, { sources: [source], maxQuarantineRatio: 0.2 }))
  })
  test('a source is a unit of its own, with itself as input', async () => {
    const sources = [{ name: 'zh', file: ref('samples:zh') }, { name: 'en', file: ref('samples:en') }]
    const both = await unitsOf(stages.ingest, { sources }, shardsOf({}))
    expect(both.map((u) => u.inputs)).toEqual(sources.map((s) => ({ sources: s })))
    expect(await unitsOf(stages.ingest, { sources: sources.slice(0, 1) }, shardsOf({}))).toEqual(both.slice(0, 1))
  })
  test('sources in another order are the same units, and another stage: its manifest lists them so', async () => {
    const sources = [{ name: 'zh', file: ref('samples:zh') }, { name: 'en', file: ref('samples:en') }]
    const [there, back] = await Promise.all([sources, sources.toReversed()].map((list) => unitsOf(stages.ingest, { sources: list }, shardsOf({}))))
    expect(back!.map((u) => u.fingerprint)).toEqual(there!.map((u) => u.fingerprint).toReversed())
    expect(fingerprintOf(stages.ingest, { sources })).not.toBe(fingerprintOf(stages.ingest, { sources: sources.toReversed() }))
  })
  test('a renamed shard of the same content is the same unit: manifests name content', async () => {
    const renamed = Object.fromEntries(Object.entries(columns(2)).map(([k, list]) => [k, list.map((s) => ({ ...s, name: `${s.name}-renamed`, commit: digest('d') }))]))
    const [as, are] = await Promise.all([columns(2), renamed].map((c) => unitsOf(stages.tokenize, request, shardsOf(c))))
    expect(are!.map((u) => u.fingerprint)).toEqual(as!.map((u) => u.fingerprint))
  })
  test('no drops are no columns', async () => {
    const units = await unitsOf(stages.tokenize, { ...request, drops: [] }, shardsOf(columns(2)))
    expect(units.map((u) => u.inputs['drops'])).toEqual([[], []])
  })
  test('an optional manifest is a column where the request has it, and the units without it stay what they were', async () => {
    const shards = shardsOf({ ...columns(2), 'c:spans': [shard('spans-0'), shard('spans-1')] })
    const [plain, told] = await Promise.all([request, { ...request, personalData: ref('c:spans') }].map((r) => unitsOf(stages.tokenize, r, shards)))
    expect(plain!.map((u) => Object.keys(u.inputs))).toEqual([['corpus', 'drops'], ['corpus', 'drops']])
    expect(told!.map((u) => u.inputs['personalData'])).toEqual([shard('spans-0'), shard('spans-1')])
    expect(new Set([...plain!, ...told!].map((u) => u.fingerprint)).size).toBe(4)
    await expect(unitsOf(stages.tokenize, { ...request, personalData: ref('c:spans') }, shardsOf({ ...columns(2), 'c:spans': [shard('spans-0', 9), shard('spans-1')] }))).rejects.toThrow('of corpus, drops, personalData has 10, 10, 10, 9 rows')
  })
  test('manifests with different numbers of shards are refused', async () => {
    await expect(unitsOf(stages.tokenize, request, shardsOf({ ...columns(2), 'c:dedup': [shard('dedup-0')] }))).rejects.toThrow('have 2, 2, 1 shards')
  })
  test('shards with different numbers of rows are refused', async () => {
    await expect(unitsOf(stages.tokenize, request, shardsOf({ ...columns(2), 'c:dedup': [shard('dedup-0'), shard('dedup-1', 9)] }))).rejects.toThrow('shard 1 of corpus, drops has 10, 10, 9 rows')
  })
})
