import { expect, test } from 'vitest'
import { plainText } from './plain-text.ts'

test('escape sequences of a log line do not reach the terminal', () => {
  expect(plainText('\u001b[31mred\u001b[0m \u001b]0;title\u0007\u001b[2Jafter')).toBe('red after')
  expect(plainText('a\rb\u0007\u009b2Jc\u202e')).toBe('a b  2Jc ')
})

test('ordinary text, Chinese and line breaks stay', () => {
  expect(plainText('损失 1.5\n\tnext — ok')).toBe('损失 1.5\n\tnext — ok')
})
