import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig } from '@cpt/activities/config'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { CodeLock, codeNow, findings, lockFile, lockPath, relocked, shippedCode, versionsNow, type CodeNow } from './code-lock.ts'
import { historyOf } from './history.ts'

/** Each look at the code starts a Python. */
const patienceMs = 120_000
const lock = (): CodeLock => CodeLock.parse(JSON.parse(readFileSync(lockFile, 'utf8')))

test('the code of every stage is the locked one', { timeout: patienceMs }, async () => {
  expect(findings(lock(), await codeNow()).join('\n\n')).toBe('')
})

describe('recorded fixtures only grow', () => {
  const fingerprintsPath = 'contracts/fixtures/fingerprints.json'
  const unitsPath = 'contracts/fixtures/unit-fingerprints.json'
  const Recorded = z.record(z.string(), z.json())
  const today = (path: string): unknown => JSON.parse(readFileSync(join(loadConfig().home, path), 'utf8'))

  for (const path of [fingerprintsPath, unitsPath]) {
    const { texts, reach } = historyOf(path)
    test(`${path} holds every line that it ever held (${reach})`, () => {
      for (const { commit, text } of texts) expect(today(path), `a line of commit ${commit} is gone or changed: results committed under it would be lost`).toMatchObject(Recorded.parse(JSON.parse(text)))
    })
  }

  const { texts, reach } = historyOf(lockPath)
  test(`${lockPath} holds every accepted digest, in order (${reach})`, () => {
    for (const { commit, text } of texts) {
      for (const [stage, entries] of Object.entries(CodeLock.parse(JSON.parse(text)).stages)) expect(lock().stages[stage]?.slice(0, entries.length), `${stage} at commit ${commit}`).toEqual(entries)
    }
  })
})

describe('the digest of a stage', { timeout: patienceMs }, () => {
  let folder = ''
  let before: CodeNow
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'cpt-code-'))
    before = await codeNow()
  }, patienceMs)
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  /** Which digests move when `change` is made to one file of the package or to the lock. */
  const movedBy = async (file: string, change: (text: string) => string): Promise<string[]> => {
    const at = { package: join(folder, 'cpt_ml'), lock: join(folder, 'uv.lock') }
    cpSync(shippedCode.package, at.package, { recursive: true, filter: (path) => !path.endsWith('__pycache__') })
    cpSync(shippedCode.lock, at.lock)
    const path = file === 'uv.lock' ? at.lock : join(at.package, file)
    const text = readFileSync(path, 'utf8')
    expect(change(text)).not.toBe(text)
    writeFileSync(path, change(text))
    const after = await codeNow(at)
    return Object.keys(after).filter((stage) => after[stage]?.digest !== before[stage]?.digest)
  }
  const importersOf = (part: string) => Object.entries(before).flatMap(([stage, { parts }]) => (part in parts ? [stage] : []))

  test('is there for every stage of the contracts, and for no other module', () => {
    expect(Object.keys(before).sort()).toEqual(Object.keys(versionsNow()).sort())
  })
  test('moves with a constant of its module, and of a module that it imports lazily or through another', async () => {
    expect(await movedBy('export_model.py', (t) => `${t}\nONE_MORE = 1\n`)).toEqual(['export-model'])
    // export-model imports llama inside a function, train at the top, evaluate-perplexity too
    expect(await movedBy('llama.py', (t) => `${t}\nONE_MORE = 1\n`)).toEqual(importersOf('cpt_ml.llama'))
    expect(importersOf('cpt_ml.llama')).toEqual(expect.arrayContaining(['train', 'export-model', 'evaluate-perplexity']))
    expect(importersOf('cpt_ml.benchmark_tasks')).toEqual(['evaluate-benchmark'])
  })
  test('does not move with a comment, a docstring, the layout or the order of imports', async () => {
    const nothing: string[] = []
    expect(await movedBy('adamw.py', (t) => `# a comment\n${t.replace('"""', '"""Other words: ')}\n\n\n`)).toEqual(nothing)
    expect(await movedBy('schedule.py', (t) => t.replace(/^(def [a-z_]+\()(.+)\)( ->)/m, '$1\n    $2,\n)$3'))).toEqual(nothing)
    expect(await movedBy('schedule.py', (t) => t.replace(/^import math\n(from dataclasses .+\n)/m, '$1import math\n'))).toEqual(nothing)
  })
  test('does not move with what cannot change a result', async () => {
    expect(await movedBy('warm.py', (t) => `${t}\nONE_MORE = 1\n`)).toEqual([])
  })
  test('moves with the version of a library that the stage imports, and not with that of a tool', async () => {
    const raise = (name: string) => (t: string) => t.replace(new RegExp(`(name = "${name}"\nversion = )"[^"]+"`), '$1"99.0"')
    expect(await movedBy('uv.lock', raise('torch'))).toEqual(importersOf('torch'))
    expect(await movedBy('uv.lock', raise('fasttext-numpy2'))).toEqual(importersOf('fasttext-numpy2'))
    expect(importersOf('torch')).not.toContain('filter')
    expect(await movedBy('uv.lock', raise('ruff'))).toEqual([])
  })
  test('cannot be taken where a library is imported that nothing pins', async () => {
    await expect(movedBy('filter.py', (t) => `${t}\nimport leftpad\n`)).rejects.toThrow('cpt_ml.filter imports leftpad, and uv.lock pins no leftpad: add it to ml/pyproject.toml')
  })
})

describe('locking', () => {
  const digest = (c: string) => c.repeat(64)
  const locked: CodeLock = { format: 'cpt-code-lock/1', stages: { train: [{ version: 1, digest: digest('a'), why: 'first lock' }], filter: [{ version: 1, digest: digest('f'), why: 'first lock' }] }, parts: { 'cpt_ml.adamw': '1', torch: '2.15.0' } }
  const now: CodeNow = { train: { digest: digest('b'), parts: { 'cpt_ml.adamw': '2', torch: '2.16.0' } }, filter: { digest: digest('f'), parts: {} } }
  const versions = { train: 1, filter: 1 }

  test('a moved digest under the old version is a finding that says what moved and what to type', () => {
    const [finding, ...others] = findings(locked, now, versions)
    expect(others).toEqual([])
    expect(finding).toContain('train: the code moved (cpt_ml.adamw, torch 2.15.0 → 2.16.0), and its version is still 1')
    expect(finding).toContain('npm run lock:code -- --stage train --same-results "<reason>"')
  })
  test('a reason appends an entry, and what was accepted before stays', () => {
    const next = relocked(locked, now, ['train'], 'the sums are taken in the same order', versions)
    expect(next.stages['train']).toEqual([...locked.stages['train']!, { version: 1, digest: digest('b'), why: 'same-results: the sums are taken in the same order' }])
    expect(findings(next, now, versions)).toEqual([])
    expect(next.parts).toEqual(now['train']!.parts)
  })
  test('a raised version needs the lock too, and no reason', () => {
    const raised = { ...versions, train: 2 }
    expect(findings(locked, now, raised)).toEqual(['train: version 2 is not locked yet. Run: npm run lock:code -- --stage train'])
    expect(relocked(locked, now, ['train'], null, raised).stages['train']?.at(-1)).toEqual({ version: 2, digest: digest('b'), why: 'version 2' })
    expect(() => relocked(locked, now, ['train'], 'nothing changed', raised)).toThrow('leave --same-results out')
  })
  test('code that goes back to what was accepted once is a move like any other', () => {
    const there = relocked(locked, now, ['train'], 'faster', versions)
    const back: CodeNow = { ...now, train: { ...now['train']!, digest: digest('a') } }
    expect(findings(there, back, versions)).toHaveLength(1)
  })
  test.each([
    ['nothing moved', 'filter', 'a reason', versions, 'filter: nothing moved'],
    ['no reason is given', 'train', null, versions, 'the code moved under version 1; raise the version, or give --same-results'],
    ['the version fell', 'train', 'a reason', { ...versions, train: 0 }, 'version 0 is lower than 1'],
    ['the stage is unknown', 'tarin', 'a reason', versions, 'tarin: no such stage; there are train, filter'],
  ])('is refused where %s', (_, stage, reason, v, message) => {
    expect(() => relocked(locked, now, [stage], reason, v)).toThrow(message)
  })
})
