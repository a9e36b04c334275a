import { createInterface } from 'node:readline'
import { localDiskStore } from './local-disk.ts'

// a process of the race in artifact-store.cases.ts: a line is a key to put one's own name at; answers {won, read}
const store = localDiskStore({ store: process.argv[2] ?? '' })
const name = Buffer.from(`${process.pid}`)
for await (const key of createInterface(process.stdin)) {
  const won = await store.putIfAbsent(key, name)
  const read = Buffer.from((await store.get(key)) ?? '').toString('utf8')
  process.stdout.write(`${JSON.stringify({ won, read })}\n`)
}
