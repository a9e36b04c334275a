import { createInterface } from 'node:readline'
import { loadConfig } from '../config.ts'
import { openStore } from './open-store.ts'

// a process of the race (race.ts): a line lists keys to put one's own name at; answers with [won, what holds] of each
const store = openStore(loadConfig())
const name = `typescript ${process.pid}`
for await (const line of createInterface(process.stdin)) {
  const answers: [won: boolean, held: string][] = []
  for (const key of JSON.parse(line) as string[]) {
    const won = await store.putIfAbsent(key, Buffer.from(name))
    answers.push([won, Buffer.from((await store.get(key)) ?? '').toString('utf8')])
  }
  process.stdout.write(`${JSON.stringify(answers)}\n`)
}
