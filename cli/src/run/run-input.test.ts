import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { CliError } from '../cli-error.ts'
import { readInput, setField } from './run-input.ts'

let folder: string
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'cpt-input-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))
const file = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}

test('--set reads numbers, lists and texts as they look, and keeps its neighbours', () => {
  const input = ['training.peakLr=3e-4', 'training.dtype=float32', 'seed=7', 'description=a b', 'synthesis.languages=[en, zh]'].reduce(setField, { training: { minLr: 0 } })
  expect(input).toEqual({ training: { minLr: 0, peakLr: 3e-4, dtype: 'float32' }, seed: 7, description: 'a b', synthesis: { languages: ['en', 'zh'] } })
})

test('--set reaches into a list by number', () => {
  expect(setField({ plan: [{ tokens: 1 }, { tokens: 2 }] }, 'plan.1.tokens=5')).toEqual({ plan: [{ tokens: 1 }, { tokens: 5 }] })
})

test('--set without a path, or with a poisoned one, is refused', () => {
  for (const bad of ['peakLr', '=3', 'a..b=1', '__proto__.x=1']) expect(() => setField({}, bad)).toThrow(CliError)
})

test('a run is named by the flag, else by the file content, else by the file', () => {
  expect(readInput('cptRun', file('small.yaml', 'seed: 3\n'), [], undefined).name).toBe('small')
  expect(readInput('cptRun', file('b.json', '{"name": "inside"}'), [], undefined).name).toBe('inside')
  expect(readInput('cptRun', file('c.yaml', 'name: inside'), [], 'flag').name).toBe('flag')
  expect(readInput('cptRun', undefined, [], undefined).name).toBe('quickstart')
  expect(readInput('almrLrSweep', undefined, [], undefined).name).toBe('almr-lr')
})

test('every problem of an input is named by its path', () => {
  const read = () => readInput('cptRun', file('x.yaml', 'training: {peakLr: -1}\nseeed: 3\n'), ['seed=high'], undefined)
  expect(read).toThrow(/training\.peakLr/)
  expect(read).toThrow(/seed:/)
  expect(read).toThrow(/seeed: no such key/)
})

test('a sweep is read by its own schema', () => {
  expect(readInput('almrLrSweep', file('x.yaml', 'grid: {seeds: [1]}'), ['run.seed=7', 'budgetGpuSeconds=null'], undefined)).toEqual({ name: 'x', grid: { seeds: [1] }, run: { seed: 7 }, budgetGpuSeconds: null })
  expect(() => readInput('almrLrSweep', undefined, ['grid.almr=[1.5]', 'plan=[]'], undefined)).toThrow(/grid\.almr\.0: expected .*\n.*plan: no such key/)
})

test('a file that is no object is refused', () => {
  expect(() => readInput('cptRun', file('x.yaml', '- 1\n'), [], undefined)).toThrow(/expected an object of fields, got a list/)
})
