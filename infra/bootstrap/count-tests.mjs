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

const shortened = (text) => text.replace(/\u001b\[[0-9;]*m/g, '').split('\n').map((line) => line.trimEnd()).filter((line) => line !== '').slice(0, 12).map((line) => line.slice(0, 300))

/** What failed or was skipped by vitest's JSON report: `{name, why}` with the first lines of what it said. */
export const failuresOfVitest = (file) => {
  if (!existsSync(file)) return []
  return JSON.parse(readFileSync(file, 'utf8')).testResults.flatMap(({ name = '', status, message = '', assertionResults }) => {
    const bad = assertionResults.filter((a) => a.status !== 'passed').map((a) => ({ name: `${name} › ${a.fullName}`, why: a.status === 'failed' ? shortened((a.failureMessages ?? []).join('\n')) : [a.status] }))
    return bad.length === 0 && status === 'failed' ? [{ name, why: shortened(message) }] : bad
  })
}

const entities = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' }
const plain = (xml) => xml.replace(/&(?:#(\d+)|#x([0-9a-fA-F]+)|(lt|gt|quot|apos|amp));/g, (_, ten, hex, name) => (name === undefined ? String.fromCodePoint(ten === undefined ? parseInt(hex, 16) : Number(ten)) : entities[name]))

/** The same of pytest's JUnit report. */
export const failuresOfPytest = (file) => {
  if (!existsSync(file)) return []
  return [...readFileSync(file, 'utf8').matchAll(/<testcase\b([^>]*[^/])>([\s\S]*?)<\/testcase>/g)].flatMap(([, attributes, inside]) => {
    const attribute = (text, name) => plain(new RegExp(`\\b${name}="([^"]*)"`).exec(text)?.[1] ?? '')
    const bad = /<(?:failure|error|skipped)\b[^>]*>/.exec(inside)
    return bad === null ? [] : [{ name: `${attribute(attributes, 'classname')} › ${attribute(attributes, 'name')}`, why: shortened(attribute(bad[0], 'message')) }]
  })
}
