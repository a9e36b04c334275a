import fc from 'fast-check'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { CptRunInput } from './cpt-run.ts'
import { checkInput, problemsOf } from './parse-input.ts'

const Schema = z.strictObject({ rate: z.number().positive().max(1), inner: z.strictObject({ list: z.array(z.int()) }).optional(), kind: z.enum(['a', 'b']).optional() })

const problems = (value: unknown) => checkInput(Schema, value).problems ?? []

test('a problem says where, what was expected and what came', () => {
  expect(problems({ rate: -1 })).toEqual([{ path: 'rate', expected: 'number to be >0', got: '-1' }])
  expect(problems({ rate: 'fast' })).toEqual([{ path: 'rate', expected: 'number', got: '"fast"' }])
  expect(problems({})).toEqual([{ path: 'rate', expected: 'number', got: 'nothing' }])
  expect(problems({ rate: 1, kind: 'c' })).toEqual([{ path: 'kind', expected: 'one of "a"|"b"', got: '"c"' }])
})

test('each unrecognised key is a problem of its own, with its value', () => {
  expect(problems({ rate: 1, x: 1, y: [2] })).toEqual([
    { path: 'x', expected: 'no such key', got: '1' },
    { path: 'y', expected: 'no such key', got: '[2]' },
  ])
})

test('a path leads into lists and objects', () => {
  expect(problems({ rate: 1, inner: { list: [1, 'two'], more: true } }).map((p) => p.path)).toEqual(['inner.list.1', 'inner.more'])
})

test('the input itself is named where it is wrong as a whole', () => {
  expect(problems([])).toEqual([{ path: '(input)', expected: 'object', got: '[]' }])
  expect(problems(undefined)).toEqual([{ path: '(input)', expected: 'object', got: 'nothing' }])
})

test('what came is cut to 80 characters', () => {
  const [p] = problems({ rate: 'x'.repeat(1000) })
  expect(p?.got).toHaveLength(80)
})

test('a name that objects inherit is not taken for a value of the input', () => {
  const error = z.strictObject({ toString: z.string() }).safeParse({}).error!
  expect(problemsOf(error, {})[0]?.got).toBe('nothing')
})

test('fifty thousand problems still fit into a failure', () => {
  const value = Object.fromEntries(Array.from({ length: 50_000 }, (_, i) => [`key${i}`, i]))
  const found = problems(value)
  expect(found.length).toBeLessThanOrEqual(101)
  expect(found.at(-1)).toEqual({ path: '(input)', expected: 'at most 100 problems to list', got: '50001' })
})

test('any JSON at all is either a run or a list of problems, each on one line', () => {
  fc.assert(
    fc.property(fc.oneof(fc.jsonValue(), fc.record({ preset: fc.jsonValue(), training: fc.jsonValue(), plan: fc.array(fc.jsonValue()) }, { requiredKeys: [] })), (value) => {
      const { data, problems: found } = checkInput(CptRunInput, value)
      expect(data === null).toBe(found !== null && found.length > 0)
      for (const p of found ?? []) expect(`${p.path} ${p.expected} ${p.got}`).not.toMatch(/[\u0000-\u001f]/)
    }),
  )
})
