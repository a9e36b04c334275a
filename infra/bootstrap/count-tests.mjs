import { existsSync, readFileSync } from 'node:fs'

const nothing = { passed: 0, failed: 0, skipped: 0 }
export const add = (a, b) => ({ passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped })
export const sum = (counts) => counts.reduce(add, nothing)

/** A runner that died, or failed outside any test, must not look green. */
const blame = (counts, exitCode) => (exitCode !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts)

/** Counts of vitest's JSON report; a file that could not be loaded counts as one failure. */
export const countVitest = (file, exitCode) => {
  if (!existsSync(file)) return blame(nothing, exitCode)
  const report = JSON.parse(readFileSync(file, 'utf8'))
  const unloadable = report.testResults.filter((t) => t.status === 'failed' && !t.assertionResults.some((a) => a.status === 'failed')).length
  return blame({ passed: report.numPassedTests, failed: report.numFailedTests + unloadable, skipped: report.numPendingTests + report.numTodoTests }, exitCode)
}

/** Counts of pytest's JUnit report. */
export const countPytest = (file, exitCode) => {
  if (!existsSync(file)) return blame(nothing, exitCode)
  const xml = readFileSync(file, 'utf8')
  const suites = [...xml.matchAll(/<testsuite\b[^>]*>/g)].map(([tag]) => {
    const number = (name) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(tag)?.[1] ?? 0)
    const failed = number('failures') + number('errors')
    return { passed: number('tests') - failed - number('skipped'), failed, skipped: number('skipped') }
  })
  return blame(sum(suites), exitCode)
}
