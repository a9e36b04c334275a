import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { countPytest, countVitest, failuresOfPytest, failuresOfVitest, sum } from './count-tests.mjs'

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

test('what failed or was skipped is told by name with the first lines of why', () => {
  const vitest = {
    testResults: [
      { name: 'a.test.ts', status: 'failed', assertionResults: [{ fullName: 'sums', status: 'passed' }, { fullName: 'loses', status: 'failed', failureMessages: ['\u001b[31mError\u001b[0m: 1 is not 2\n    at x'] }, { fullName: 'waits', status: 'pending' }] },
      { name: 'b.test.ts', status: 'failed', message: 'no such module', assertionResults: [] },
    ],
  }
  expect(failuresOfVitest(file(JSON.stringify(vitest)))).toEqual([
    { name: 'a.test.ts › loses', why: ['Error: 1 is not 2', '    at x'] },
    { name: 'a.test.ts › waits', why: ['pending'] },
    { name: 'b.test.ts', why: ['no such module'] },
  ])
  const xml = '<testsuite><testcase classname="t.a" name="ok" time="0"/><testcase classname="t.a" name="fine"></testcase><testcase classname="t.b" name="x[&lt;1&gt;]"><failure message="assert 1 == 2&#10; + where">long</failure></testcase></testsuite>'
  expect(failuresOfPytest(file(xml))).toEqual([{ name: 't.b › x[<1>]', why: ['assert 1 == 2', ' + where'] }])
  expect(failuresOfVitest(join(folder, 'absent'))).toEqual([])
})
