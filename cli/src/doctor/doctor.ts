import { CliError, messageOf } from '../cli-error.ts'
import { readConfig } from '../config.ts'
import { checks, type Finding } from './checks.ts'

const line = ({ ok, optional, what, found }: Finding): string => `${ok ? '✓' : optional === true ? '–' : '✗'} ${what.padEnd(19)} ${found}`

const afterRepair = async (finding: Finding, again: () => Promise<Finding>): Promise<Finding> => {
  if (finding.ok || finding.repair === undefined) return finding
  try {
    await finding.repair()
    return await again()
  } catch (error) {
    return { ...finding, found: `${finding.found}; repair failed: ${messageOf(error)}` }
  }
}

/** Says of each thing a run needs whether it is there, and how to get it; with `fix`, gets it. */
export const doctor = async (flags: { json?: boolean; fix?: boolean; state?: string }): Promise<void> => {
  const config = readConfig({ stateDir: flags.state })
  const findings: Finding[] = []
  for (const check of checks) {
    const first = await check(config)
    const finding = flags.fix === true ? await afterRepair(first, () => check(config)) : first
    findings.push(finding)
    if (flags.json !== true) process.stdout.write(`${line(finding)}\n${finding.ok ? '' : `    → ${finding.fix}\n`}`)
  }
  const missing = findings.filter((f) => !f.ok && f.optional !== true)
  if (flags.json === true) process.stdout.write(`${JSON.stringify({ ok: missing.length === 0, findings: findings.map(({ what, ok, found, fix, optional }) => ({ what, ok, found, fix, optional: optional === true })) })}\n`)
  if (missing.length > 0) throw new CliError('missing', `missing: ${missing.map((f) => f.what).join(', ')}`, 'Do what the arrows say; `cpt doctor --fix` does what it can.')
}
