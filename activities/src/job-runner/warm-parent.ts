import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { isAlive, Started } from './process.ts'

export interface WarmParentSettings {
  python: string
  mlDir: string
  env: Record<string, string>
  /** Where the parent's record and log lie; `cpt down` finds it there. */
  folder: string
  idleSeconds: number
}

export interface WarmParent {
  /** Forks a job with this environment from the parent; null where no parent is ready: start it cold. */
  fork: (stage: string, jobPath: string, env: Record<string, string>) => Promise<number | null>
}

const Forked = z.object({ pid: z.int().positive() })

/**
 * A process that has imported torch and forks jobs within milliseconds. It is keyed by a digest of code, lock and
 * environment, so a changed one never serves; it starts in the background, and until it is ready jobs start cold.
 */
export const warmParent = (settings: WarmParentSettings): WarmParent => {
  let startedAtMs = -Infinity

  return {
    fork: async (stage, jobPath, env) => {
      const key = await keyOf(settings)
      // a socket path may have 107 bytes at most, too few for a folder of the user's
      const socket = join(tmpdir(), `cpt-${process.getuid?.() ?? 0}`, `${key}.sock`)
      try {
        return await ask(socket, { stage, job: jobPath, env })
      } catch {
        // it takes seconds to import everything: one start a minute is enough
        if (performance.now() - startedAtMs > 60_000) {
          startedAtMs = performance.now()
          await start(settings, socket)
        }
        return null
      }
    },
  }
}

const ask = async (path: string, request: unknown): Promise<number> => {
  const socket = createConnection(path)
  try {
    await once(socket, 'connect')
    socket.write(`${JSON.stringify(request)}\n`)
    const [line] = (await once(socket, 'data', { signal: AbortSignal.timeout(2_000) })) as [Buffer]
    return Forked.parse(JSON.parse(line.toString('utf8'))).pid
  } finally {
    socket.destroy()
  }
}

const start = async (settings: WarmParentSettings, socket: string): Promise<void> => {
  await mkdir(join(tmpdir(), `cpt-${process.getuid?.() ?? 0}`), { recursive: true, mode: 0o700 })
  await mkdir(settings.folder, { recursive: true })
  // nobody answers there: the parent that made it is gone
  await rm(socket, { force: true })
  const log = await open(join(settings.folder, 'warm.log'), 'a')
  try {
    const args = ['-m', 'cpt_ml.warm', '--socket', socket, '--records', settings.folder, '--idle-seconds', String(settings.idleSeconds)]
    const child = spawn(settings.python, args, { cwd: settings.mlDir, env: settings.env, detached: true, stdio: ['ignore', log.fd, log.fd] })
    child.on('error', () => undefined)
    child.unref()
  } finally {
    await log.close()
  }
}

const keyOf = async ({ python, mlDir, env, folder }: WarmParentSettings): Promise<string> => {
  const hash = createHash('sha256').update(JSON.stringify([python, env, folder]))
  const names = (await readdir(join(mlDir, 'cpt_ml'), { recursive: true })).filter((n) => n.endsWith('.py')).sort()
  for (const file of [...names.map((n) => join('cpt_ml', n)), 'uv.lock']) hash.update(file).update(await readFile(join(mlDir, file)))
  return hash.digest('hex').slice(0, 24)
}

/** Ends the parents whose records lie in `folder`; their jobs are processes of their own and go on. */
export const stopWarmParents = async (folder: string): Promise<number> => {
  const records = (await readdir(folder).catch(() => [])).filter((n) => n.endsWith('.json'))
  const ended = await Promise.all(
    records.map(async (name) => {
      const parsed = Started.safeParse(JSON.parse(await readFile(join(folder, name), 'utf8').catch(() => 'null')))
      if (!parsed.success || !(await isAlive(parsed.data))) return 0
      process.kill(parsed.data.pid, 'SIGTERM')
      while (await isAlive(parsed.data)) await delay(50)
      return 1
    }),
  )
  return ended.reduce<number>((a, b) => a + b, 0)
}
