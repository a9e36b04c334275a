import { InvalidArgumentError } from 'commander'
import { expect, test } from 'vitest'
import { ageMs } from './age.ts'
import { bytesWords } from './bytes.ts'
import { gcWords } from './gc.ts'

test.each([['0', 0], ['90s', 90_000], ['30m', 1_800_000], ['12h', 43_200_000], ['7d', 604_800_000]])('an age of %s is %d ms', (text, ms) => {
  expect(ageMs(text)).toBe(ms)
})
test.each(['', '7', '-1d', '1.5d', 'd', '7 days', '1w'])('%j is no age', (text) => {
  expect(() => ageMs(text)).toThrow(InvalidArgumentError)
})

test.each([[0, '0 B'], [1023, '1023 B'], [1024, '1.0 KiB'], [1_500_000, '1.4 MiB'], [3 * 2 ** 40, '3.0 TiB']])('%d bytes read as %s', (bytes, words) => {
  expect(bytesWords(bytes)).toBe(words)
})

test('the table says what would go, what stays, and how to go on', () => {
  const report = { applied: false, swept: [{ kind: 'results' as const, count: 2, bytes: 2048 }, { kind: 'askers' as const, count: 1, bytes: 100 }], kept: { count: 3, bytes: 1024 }, saved: 0, unreadable: [] }
  const words = gcWords(report, 's3://bucket/runs')
  expect(words.split('\n').map((line) => line.trim().split(/ {2,}/))).toEqual([
    ['s3://bucket/runs'], ['would be removed', 'count', 'size'], [expect.stringMatching(/^─/), expect.anything(), expect.anything()],
    ['results', '2', '2.0 KiB'], ['askers', '1', '100 B'], ['together', '3', '2.1 KiB'], ['results kept', '3', '1.0 KiB'], ['nothing was removed; --apply does it'],
  ])
  expect(gcWords({ ...report, applied: true, saved: 1, unreadable: ['ab12'] }, 'x')).toMatch(/removed[^]*1 kept after all[^]*ab12 cannot be read/)
})
