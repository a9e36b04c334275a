import type { z } from 'zod'

/** One thing wrong with an input: where, what was expected, what came. */
export interface Problem {
  path: string
  expected: string
  got: string
}

/** Every problem of a value that does not fit its schema, by path; what came is cut to 80 characters. */
export const problemsOf = (error: z.ZodError, value: unknown): Problem[] =>
  error.issues.flatMap((issue) => {
    const at = (path: readonly PropertyKey[]) => {
      let v: unknown = value
      for (const key of path) v = typeof v === 'object' && v !== null ? (v as Record<PropertyKey, unknown>)[key] : undefined
      return show(v)
    }
    if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => ({ path: [...issue.path, key].join('.'), expected: 'no such key', got: at([...issue.path, key]) }))
    return [{ path: issue.path.join('.') || '(input)', expected: issue.message, got: at(issue.path) }]
  })

const show = (v: unknown): string => {
  const text = v === undefined ? 'nothing' : JSON.stringify(v)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}
