import type { z } from 'zod'

/** One thing wrong with an input: where, what was expected, what came. */
export interface Problem {
  path: string
  expected: string
  got: string
}

/** More than these are counted, not listed: a failure has to fit into a message of the server. */
const maxProblems = 100

interface Finding {
  path: readonly PropertyKey[]
  expected: string
}

/** The value as its schema reads it, or every problem with it, each path once. */
export const checkInput = <S extends z.ZodType>(schema: S, value: unknown): { data: z.output<S>; problems: null } | { data: null; problems: Problem[] } => {
  const parsed = schema.safeParse(value)
  const found = [...prototypeKeys(value), ...(parsed.success ? [] : findings(parsed.error))]
  if (parsed.success && found.length === 0) return { data: parsed.data, problems: null }
  const listed = new Map(found.slice(0, maxProblems).map((f) => [f.path.join('.'), problem(f, value)]))
  const more = found.length <= maxProblems ? [] : [{ path: '(input)', expected: `at most ${maxProblems} problems to list`, got: `${found.length}` }]
  return { data: null, problems: [...listed.values(), ...more] }
}

/** Every problem of a value that does not fit its schema, by path; what came is cut to 80 characters. */
export const problemsOf = (error: z.ZodError, value: unknown): Problem[] => findings(error).map((f) => problem(f, value))

const findings = (error: z.ZodError): Finding[] =>
  error.issues.flatMap((issue): Finding[] => {
    if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => ({ path: [...issue.path, key], expected: 'no such key' }))
    // what is wrong with a key of a record stands in the inner issue
    const said = issue.code === 'invalid_key' || issue.code === 'invalid_element' ? (issue.issues[0]?.message ?? issue.message) : issue.message
    return [{ path: issue.path, expected: said.replace(/^(?:[A-Z][a-z ]+: )?expected /, '').replace(/, received .*$/, '') }]
  })

/** Records of zod pass over `__proto__` in silence; JSON can carry it as a key like any other. */
const prototypeKeys = (value: unknown): Finding[] => {
  const found: Finding[] = []
  const path: string[] = []
  const walk = (v: unknown): void => {
    if (typeof v !== 'object' || v === null) return
    for (const [key, inner] of Object.entries(v)) {
      path.push(key)
      if (key === '__proto__') found.push({ path: [...path], expected: 'no such key' })
      else walk(inner)
      path.pop()
    }
  }
  walk(value)
  return found
}

const problem = ({ path, expected }: Finding, value: unknown): Problem => {
  let got: unknown = value
  for (const key of path) got = typeof got === 'object' && got !== null && Object.hasOwn(got, key) ? (got as Record<PropertyKey, unknown>)[key] : undefined
  return { path: path.map(showKey).join('.') || '(input)', expected, got: show(got) }
}

const showKey = (key: PropertyKey): string => {
  const text = String(key)
  return short(/^[\w./-]+$/.test(text) ? text : JSON.stringify(text))
}

const show = (v: unknown): string => {
  if (v === undefined) return 'nothing'
  return short(typeof v === 'number' ? String(v) : JSON.stringify(v))
}

const short = (text: string): string => (text.length > 80 ? `${text.slice(0, 77)}...` : text)

/** What a refused input is told: each problem a line. */
export const inputRefusal = (problems: readonly Problem[]): string =>
  `${problems.length} problem${problems.length === 1 ? '' : 's'} in the input:\n${problems.map((p) => `  ${p.path}: expected ${p.expected}, got ${p.got}`).join('\n')}`
