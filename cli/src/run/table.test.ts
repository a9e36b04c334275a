import { expect, test } from 'vitest'
import { table } from './table.ts'

test('columns line up, numbers to the right', () => {
  expect(table(['set', 'loss'], [['zh', '4.1'], ['english', '12.25']])).toBe(['  set       loss', '  ───────  ─────', '  zh         4.1', '  english  12.25'].join('\n'))
})
