import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { countPytest, countVitest, sum } from './count-tests.mjs'

let folder
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'cpt-count-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))
const file = (text) => {
  writeFileSync(join(folder, 'report'), text)
  return join(folder, 'report')
}

test('a JUnit report is counted over all suites, errors as failures', () => {
  const xml = '<testsuites><testsuite name="a" errors="1" failures="2" skipped="3" tests="10" time="1.0"></testsuite><testsuite errors="0" failures="0" skipped="0" tests="4"/></testsuites>'
  expect(countPytest(file(xml), 1)).toEqual({ passed: 8, failed: 3, skipped: 3 })
})

test('a vitest report counts a file that could not be loaded', () => {
  const report = { numPassedTests: 5, numFailedTests: 0, numPendingTests: 1, numTodoTests: 1, testResults: [{ status: 'failed', assertionResults: [] }, { status: 'passed', assertionResults: [{ status: 'passed' }] }] }
  expect(countVitest(file(JSON.stringify(report)), 1)).toEqual({ passed: 5, failed: 1, skipped: 2 })
})

test('a runner that fails without a report or a failed test counts as one failure', () => {
  expect(countVitest(join(folder, 'absent'), 1)).toEqual({ passed: 0, failed: 1, skipped: 0 })
  expect(countPytest(file('<testsuite errors="0" failures="0" skipped="0" tests="4"/>'), 3)).toEqual({ passed: 4, failed: 1, skipped: 0 })
})

test('counts add up', () => {
  expect(sum([{ passed: 1, failed: 0, skipped: 0 }, { passed: 2, failed: 3, skipped: 4 }])).toEqual({ passed: 3, failed: 3, skipped: 4 })
})
