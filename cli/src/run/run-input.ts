import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { checkInput } from '@cpt/contracts/parse-input'
import { Name } from '@cpt/contracts/units'
import { parse } from 'yaml'
import { CliError, messageOf } from '../cli-error.ts'
import { startable, type InputOf, type Startable } from '../startable.ts'

type Fields = Record<string, unknown>

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value)

/** Reads YAML or JSON (which is YAML); an empty file is an empty input. */
export const readInputFile = (file: string): Fields => {
  let value: unknown
  try {
    value = parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw new CliError('usage', `${file}: ${messageOf(error)}`, 'Give a YAML or JSON file; `cpt schema` prints what may stand in it.')
  }
  if (value === null || value === undefined) return {}
  if (!isFields(value)) throw new CliError('usage', `${file}: expected an object of fields, got ${Array.isArray(value) ? 'a list' : typeof value}`, '`cpt schema` prints what may stand in it.')
  return value
}

/** Sets one field from `path=value`; the value is read as YAML, so numbers, true, null and [lists] are what they look like. */
export const setField = (input: Fields, assignment: string): Fields => {
  const at = assignment.indexOf('=')
  const path = assignment.slice(0, Math.max(at, 0)).split('.')
  if (at < 1 || path.some((key) => key === '' || key === '__proto__')) throw new CliError('usage', `--set ${assignment}: expected path=value`, 'For example --set training.peakLr=3e-4')
  let value: unknown
  try {
    value = parse(assignment.slice(at + 1))
  } catch (error) {
    throw new CliError('usage', `--set ${assignment}: ${messageOf(error)}`, 'Quote a text that is no YAML value.')
  }
  const put = (node: unknown, [key = '', ...rest]: string[]): unknown => {
    const next = rest.length === 0 ? value : put(Array.isArray(node) ? (node[Number(key)] as unknown) : isFields(node) ? node[key] : undefined, rest)
    if (Array.isArray(node)) return node.map((item: unknown, i) => (String(i) === key ? next : item))
    return { ...(isFields(node) ? node : {}), [key]: next }
  }
  return put(input, path) as Fields
}

/** The input as given, checked here already so that a typo needs no server; the workflow checks it again. */
export const readInput = <T extends Startable>(type: T, file: string | undefined, sets: readonly string[], name: string | undefined): InputOf<T> & { name: string } => {
  const fields = sets.reduce(setField, file === undefined ? {} : readInputFile(file))
  const fromFile = file === undefined ? startable[type].presetName : basename(file).replace(/\.(ya?ml|json)$/i, '')
  const input = { ...fields, name: name ?? fields['name'] ?? fromFile }
  const { problems } = checkInput(startable[type].input, input)
  if (problems !== null) {
    const lines = problems.map((p) => `  ${p.path}: ${p.expected === 'no such key' ? p.expected : `expected ${p.expected}`}, got ${p.got}`)
    throw new CliError('usage', `${problems.length === 1 ? 'a problem' : `${problems.length} problems`} in the input:\n${lines.join('\n')}`, `\`cpt schema ${type}\` prints what is expected.`)
  }
  return { ...(input as InputOf<T>), name: Name.parse(input.name) }
}
