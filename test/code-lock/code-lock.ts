import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { loadConfig } from '@cpt/activities/config'
import { stages } from '@cpt/contracts/stages'
import { z } from 'zod'

const execute = promisify(execFile)

/** What a stage's code is made of: modules of ours by digest, libraries by version. */
const Parts = z.record(z.string(), z.string())
const CodeNow = z.record(z.string(), z.strictObject({ digest: z.string(), parts: Parts }))
export type CodeNow = z.infer<typeof CodeNow>

/** A digest that stands for results of `version`, and why it may. */
const Accepted = z.strictObject({ version: z.int().min(1), digest: z.string().regex(/^[0-9a-f]{64}$/), why: z.string().min(1) })

/** contracts/fixtures/code-digests.json: each stage's list only grows, and its last entry is the code of today. */
export const CodeLock = z.strictObject({ format: z.literal('cpt-code-lock/1'), stages: z.record(z.string(), z.array(Accepted).min(1)), parts: Parts })
export type CodeLock = z.infer<typeof CodeLock>

const { home, python, jobEnv } = loadConfig()
export const lockPath = 'contracts/fixtures/code-digests.json'
export const lockFile = join(home, lockPath)
export const shippedCode = { package: join(home, 'ml/cpt_ml'), lock: join(home, 'ml/uv.lock') }

/** Digests of the code as it stands. Throws with the tool's own words when it cannot tell. */
export const codeNow = async (at: { package: string; lock: string } = shippedCode): Promise<CodeNow> => {
  const { stdout } = await execute(python, ['-m', 'cpt_ml.code_digests', '--package', at.package, '--lock', at.lock], { cwd: join(home, 'ml'), env: jobEnv, maxBuffer: 1 << 24 })
  return CodeNow.parse(JSON.parse(stdout))
}

export const versionsNow = (): Record<string, number> => Object.fromEntries(Object.values(stages).map((s) => [s.name, s.version]))

/** What is wrong with a stage's lock, and what to do about it; null when it holds. */
const findingOf = (stage: string, version: number, lock: CodeLock, now: CodeNow): string | null => {
  const [code, last] = [now[stage], lock.stages[stage]?.at(-1)]
  const command = `npm run lock:code -- --stage ${stage}`
  if (code === undefined) return `${stage}: ml/cpt_ml has no module ${stage.replaceAll('-', '_')}.py with a function run`
  if (last === undefined) return `${stage}: its code is not locked yet. Run: ${command}`
  if (version < last.version) return `${stage}: version ${version} is lower than ${last.version}, which is locked; versions only grow`
  if (version > last.version) return `${stage}: version ${version} is not locked yet. Run: ${command}`
  if (code.digest === last.digest) return null
  return [
    `${stage}: the code moved (${movedParts(lock.parts, code.parts)}), and its version is still ${version}.`,
    '  If the same request can now give another result: raise its version in contracts/src, add its line to contracts/fixtures/fingerprints.json, and run',
    `    ${command}`,
    '  If it cannot: say why, and results that are committed stay valid:',
    `    ${command} --same-results "<reason>"`,
  ].join('\n')
}

const movedParts = (before: Record<string, string>, after: Record<string, string>): string => {
  const moved = Object.entries(after).flatMap(([name, is]) => {
    const was = before[name]
    if (was === is) return []
    if (name.startsWith('cpt_ml.')) return [was === undefined ? `${name} is new` : name]
    return [`${name} ${was ?? 'none'} → ${is}`]
  })
  return moved.length === 0 ? 'it imports less than before' : moved.join(', ')
}

/** Everything that is wrong with the lock, a line or a paragraph each. */
export const findings = (lock: CodeLock, now: CodeNow, versions = versionsNow()): string[] =>
  Object.entries(versions).flatMap(([stage, version]) => findingOf(stage, version, lock, now) ?? [])

/**
 * The lock with an entry more for each named stage. Throws RangeError where nothing moved, where a moved digest under
 * an unraised version comes without a reason, or where a raised version comes with one.
 */
export const relocked = (lock: CodeLock, now: CodeNow, names: readonly string[], sameResults: string | null, versions = versionsNow()): CodeLock => {
  const added = names.map((stage) => {
    const [version, code, list] = [versions[stage], now[stage], lock.stages[stage] ?? []]
    if (version === undefined || code === undefined) throw new RangeError(`${stage}: no such stage; there are ${Object.keys(versions).join(', ')}`)
    const last = list.at(-1)
    const entry = (why: string): [string, CodeLock['stages'][string]] => [stage, [...list, { version, digest: code.digest, why }]]
    if (last === undefined) return entry('first lock')
    if (version < last.version) throw new RangeError(`${stage}: version ${version} is lower than ${last.version}, which is locked`)
    if (version > last.version) {
      if (sameResults !== null) throw new RangeError(`${stage}: its version was raised to ${version}, which says that results may change; leave --same-results out`)
      return entry(`version ${version}`)
    }
    if (code.digest === last.digest) throw new RangeError(`${stage}: nothing moved`)
    if (sameResults === null) throw new RangeError(`${stage}: the code moved under version ${version}; raise the version, or give --same-results "<reason>"`)
    return entry(`same-results: ${sameResults}`)
  })
  const next: CodeLock = { ...lock, stages: { ...lock.stages, ...Object.fromEntries(added) } }
  // parts tell what moved since everything was in order: half a relock must not blur that
  return findings(next, now, versions).length > 0 ? next : { ...next, parts: Object.fromEntries(Object.values(now).flatMap((c) => Object.entries(c.parts)).sort(([a], [b]) => (a < b ? -1 : 1))) }
}
