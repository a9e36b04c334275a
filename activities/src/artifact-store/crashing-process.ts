import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { z } from 'zod'
import { findHome } from '../config.ts'

/** Bundles crash-me.ts to `program`: as CommonJS it loads without libuv's threads, so the first file operation starts the only one. */
export const buildCrashMe = async (program: string, { withS3 }: { withS3: boolean }): Promise<void> => {
  await build({ external: withS3 ? [] : ['@aws-sdk/client-s3'], entryPoints: [fileURLToPath(new URL('crash-me.ts', import.meta.url))], outfile: program, bundle: true, platform: 'node', format: 'cjs', target: 'node20', logLevel: 'error' })
}

const Ready = z.object({ fileThread: z.array(z.string()).length(1) })

export interface CrashingProcess {
  pid: number
  /** The one thread that does its file operations. */
  fileThread: string
  /** Lets it commit. */
  go: () => void
  /** How it ended: by a signal, or with the attempt whose record holds. */
  ended: Promise<{ signal: NodeJS.Signals | null; held: string | null; said: string }>
}

/** Starts a process that commits as `attempt` to the store of `environment` when told to. */
export const startCrashMe = async (program: string, attempt: string, environment: Record<string, string>): Promise<CrashingProcess> => {
  const child = spawn(process.execPath, [program, attempt], { env: { ...environment, CPT_HOME: findHome(), UV_THREADPOOL_SIZE: '1', UV_USE_IO_URING: '0' }, stdio: ['pipe', 'pipe', 'pipe'] })
  let said = ''
  child.stderr.on('data', (data: Buffer) => (said += data.toString('utf8')))
  child.stdin.on('error', () => undefined) // it may be gone before it reads
  const exited = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const first = await lines.next()
  if (first.done === true) throw new Error(`the process ended at once: ${said}`)
  const ended = async (): ReturnType<() => CrashingProcess['ended']> => {
    const last = await lines.next()
    const [, signal] = await exited
    return { signal, held: last.done === true ? null : z.object({ held: z.string() }).parse(JSON.parse(last.value)).held, said }
  }
  return { pid: child.pid ?? 0, fileThread: Ready.parse(JSON.parse(first.value)).fileThread[0] ?? '', go: () => child.stdin.write('go\n'), ended: ended() }
}
