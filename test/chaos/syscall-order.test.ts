import { expect, test } from 'vitest'
import { unsyncedRecords } from './syscall-order.ts'

const first = '/store/commits/ab/.tmp-1-aa'
const second = '/store/commits/ab/.tmp-1-bb'

test('a record that is synced before it gets its name is in order, also where threads cut calls in two', () => {
  const trace = [
    `11 fsync(3<${first}> <unfinished ...>`, `12 fsync(4<${second}>) = 0`, '11 <... fsync resumed>) = 0',
    `12 link("${second}", "/store/commits/ab/b.json") = 0`, `11 linkat(AT_FDCWD, "${first}", AT_FDCWD, "/store/commits/ab/a.json", 0 <unfinished ...>`,
  ].join('\n')
  expect(unsyncedRecords(trace)).toEqual({ linked: 2, unsynced: [] })
})

test('one that gets its name before, or without, is named', () => {
  const trace = [`11 link("${first}", "/store/commits/ab/a.json") = 0`, `11 fsync(3<${first}>) = 0`, `11 fsync(3</store/commits/ab>) = 0`, `12 link("${second}", "/store/commits/ab/b.json") = 0`].join('\n')
  expect(unsyncedRecords(trace)).toEqual({ linked: 2, unsynced: [first, second] })
})
