import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { sweepDebris } from './job-debris.ts'

test('of an attempt that is over the half-written files go, and all that it said stays', async () => {
  const path = await mkdtemp(join(tmpdir(), 'cpt-debris-'))
  for (const name of ['.tmp-12-ab', '.tmp-12-cd', 'beat.json', 'end.json', 'log.jsonl']) await writeFile(join(path, name), '{}')
  await sweepDebris({ path, fingerprint: 'f', range: 0, attempt: 1 })
  expect((await readdir(path)).sort()).toEqual(['beat.json', 'end.json', 'log.jsonl'])
  await rm(path, { recursive: true })
  await sweepDebris({ path, fingerprint: 'f', range: 0, attempt: 1 })
})
