import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { checkInput } from './parse-input.ts'
import type { Stage } from './stage.ts'
import { stages } from './stages.ts'

const folder = new URL('../fixtures/jobs/', import.meta.url)
const all: Stage[] = Object.values(stages)
const golden = (name: string): Record<string, unknown> => JSON.parse(readFileSync(new URL(`${name}.json`, folder), 'utf8')) as Record<string, unknown>

const paths = (stage: Stage, request: unknown): string[] => checkInput(stage.request, request).problems?.map((p) => p.path) ?? []
/** Path of the first reference in a request. */
const pathOfRef = (value: unknown, path: string[] = []): string[] | null => {
  if (typeof value !== 'object' || value === null) return null
  if ('sha256' in value && 'uri' in value && 'bytes' in value) return path
  for (const [key, inner] of Object.entries(value)) {
    const found = pathOfRef(inner, [...path, key])
    if (found !== null) return found
  }
  return null
}
const withAt = (value: unknown, path: string[], change: (v: unknown) => unknown): unknown => {
  const [key, ...rest] = path
  if (key === undefined) return change(value)
  const copy = (Array.isArray(value) ? [...value] : { ...(value as object) }) as Record<string, unknown>
  copy[key] = withAt(copy[key], rest, change)
  return copy
}

test('every golden request belongs to a stage, and every stage has one', () => {
  expect(readdirSync(folder).sort()).toEqual(all.map((s) => `${s.name}.json`).sort())
})

test('a stage has one name: its key in camel case is its name in kebab case', () => {
  expect(Object.entries(stages).map(([key]) => key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`))).toEqual(all.map((s) => s.name))
})

describe.each(all.map((s) => [s.name, s] as const))('the golden request of %s', (name, stage) => {
  const request = golden(name)

  test('parses to itself, so that both languages see every field', () => {
    expect(checkInput(stage.request, request)).toEqual({ data: request, problems: null })
  })
  test('may not carry an unknown key', () => {
    expect(paths(stage, { ...request, surprise: 1 })).toEqual(['surprise'])
  })
  test('names every field that has a value no field may have', () => {
    const wrong = Object.fromEntries(Object.keys(request).map((key) => [key, -1.5]))
    expect(new Set(paths(stage, wrong))).toEqual(new Set(Object.keys(request)))
  })
  test('refuses a reference without its digest, with a short one, or with a place that is none', () => {
    const at = pathOfRef(request)
    if (at === null) return expect(name).toBe('synthesize-qa') // it refers to nothing
    const odd = (change: object) => paths(stage, withAt(request, at, (v) => ({ ...(v as object), ...change })))
    expect(odd({ sha256: 'abc' })).toEqual([[...at, 'sha256'].join('.')])
    expect(odd({ uri: '/etc/passwd' })).toEqual([[...at, 'uri'].join('.')])
    expect(odd({ bytes: -1 })).toEqual([[...at, 'bytes'].join('.')])
    expect(odd({ owner: 'x' })).toEqual([[...at, 'owner'].join('.')])
  })
  if (stage.shape.kind === 'map') {
    test('has the fields that its units are cut over', () => {
      const { shape } = stage
      const over = shape.kind === 'whole' ? [] : 'items' in shape ? [shape.items] : shape.manifests
      for (const field of over) expect(request).toHaveProperty(field)
      for (const ratio of (shape.kind === 'map' ? shape.stageOnly : undefined) ?? []) expect(paths(stage, { ...request, [ratio]: 0.5 })).toEqual([])
    })
  }
})
