import { expect, test } from 'vitest'
import { fit } from './screen.ts'

test('a status line never wraps, also with wide characters', () => {
  expect(fit('short', 20)).toBe('short')
  expect(fit('0123456789', 8)).toBe('0123456…')
  expect(fit('中文字符', 6)).toBe('中文…')
})
