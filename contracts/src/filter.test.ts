import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { FilterRules } from './filter.ts'

const groups = JSON.parse(readFileSync(new URL('../fixtures/filter-groups.json', import.meta.url), 'utf8')) as Record<string, object>

test('a group of rules that is not given is off, and one given without thresholds has the defaults that Python tests with', () => {
  const names = Object.keys(groups)
  expect(FilterRules.parse({})).not.toHaveProperty('gopher')
  expect(FilterRules.parse(Object.fromEntries(names.map((name) => [name, {}])))).toMatchObject(groups)
  for (const name of names) expect(FilterRules.safeParse({ [name]: { surprise: 1 } }).success).toBe(false)
})
test('a threshold may be null, which turns its rule off, and lists have a value for every length of gram', () => {
  expect(FilterRules.parse({ gopher: { maxHashRatio: null } }).gopher?.maxHashRatio).toBeNull()
  expect(FilterRules.safeParse({ gopher: { maxTopGramRatios: [0.2, 0.18] } }).success).toBe(false)
})
