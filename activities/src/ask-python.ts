import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { z } from 'zod'
import type { Config } from './config.ts'

/** What Python said it could not do, or a Python that cannot be started. */
export class PythonFailed extends Error {}

const Refusal = z.object({ error: z.string() })

/** Asks a module of ml/cpt_ml that reads one JSON object and writes one, its answer or {error}. Throws PythonFailed. */
export const askPython = async <S extends z.ZodType>(config: Pick<Config, 'python' | 'home' | 'jobEnv'>, module: string, question: unknown, schema: S): Promise<z.output<S>> => {
  const python = spawn(config.python, ['-m', `cpt_ml.${module}`], { cwd: join(config.home, 'ml'), env: config.jobEnv, stdio: ['pipe', 'pipe', 'pipe'] })
  const ended = once(python, 'close') as Promise<[number | null]>
  python.stdin.on('error', () => undefined) // one that ends early says why on its error output
  python.stdin.end(JSON.stringify(question))
  const [[code], said, complaint] = await Promise.all([ended, text(python.stdout), text(python.stderr)]).catch((error: unknown) => {
    throw new PythonFailed(`${config.python}: ${error instanceof Error ? error.message : String(error)}`)
  })
  const value = jsonIn(said)
  const refusal = Refusal.safeParse(value)
  if (refusal.success) throw new PythonFailed(refusal.data.error)
  const answer = schema.safeParse(value)
  if (!answer.success) throw new PythonFailed(`${module} ended with ${code ?? 'a signal'}: ${complaint.trim().split('\n').at(-1) ?? ''}`)
  return answer.data
}

const jsonIn = (said: string): unknown => {
  try {
    return JSON.parse(said)
  } catch {
    return undefined
  }
}
