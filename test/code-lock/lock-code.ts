// `npm run lock:code -- [--stage train]... [--same-results "<reason>"]`: accepts the code of today for the named stages, or for all that moved.
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { CodeLock, codeNow, findings, lockFile, lockPath, relocked, versionsNow } from './code-lock.ts'

const readLock = (): CodeLock => {
  try {
    return CodeLock.parse(JSON.parse(readFileSync(lockFile, 'utf8')))
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return { format: 'cpt-code-lock/1', stages: {}, parts: {} }
    throw e
  }
}

try {
  const { values } = parseArgs({ options: { stage: { type: 'string', multiple: true }, 'same-results': { type: 'string' } } })
  const [lock, now] = [readLock(), await codeNow()]
  const open = findings(lock, now)
  const moved = Object.keys(versionsNow()).filter((stage) => open.some((f) => f.startsWith(`${stage}: `)))
  const names = values.stage ?? moved
  const reason = values['same-results']?.trim() ?? null
  if (reason === '') throw new RangeError('--same-results wants a reason that a reader of the lock understands')
  if (names.length === 0) process.stdout.write('nothing moved\n')
  else {
    writeFileSync(lockFile, `${JSON.stringify(relocked(lock, now, names, reason), null, 2)}\n`)
    process.stdout.write(`${lockPath}: locked ${names.join(', ')}\n`)
  }
} catch (e) {
  if (!(e instanceof Error)) throw e
  process.stderr.write(`lock:code: ${e.message}\n`)
  process.exitCode = 1
}
