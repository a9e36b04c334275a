import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { findHome } from '../config.ts'

/** What N processes racing for keys came to; a store is sound where every round has one winner and all read its name. */
export interface RaceResult {
  rounds: number
  processes: number
  /** How many rounds had how many winners: {"1": rounds} where all is well. */
  winnersPerRound: Record<string, number>
  /** Rounds in which a process read something else than the winner's name right after its put. */
  misreadRounds: number
  /** Processes that won at least once: with one alone nothing was raced. */
  distinctWinners: number
  seconds: number
}

const batch = 100
const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/**
 * `processes` processes, half of them by the TypeScript and half by the Python side of the protocol, put their names at
 * `rounds` keys of the store that `environment` names (CPT_STORE and what belongs to it) and read what holds. In every
 * second batch all take the keys in the same order, neck and neck; in the others each has an order of its own.
 */
export const raceForKeys = async (environment: Record<string, string>, { rounds, processes }: { rounds: number; processes: number }): Promise<RaceResult> => {
  const folder = await mkdtemp(join(tmpdir(), 'cpt-race-'))
  try {
    const program = join(folder, 'put-racer.mjs')
    await build({ entryPoints: [here('put-racer.ts')], outfile: program, bundle: true, platform: 'node', format: 'esm', target: 'node20', logLevel: 'warning', banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" } })
    const racers = Array.from({ length: processes }, (_, i) => (i % 2 === 0 ? racer(process.execPath, [program], environment) : racer(join(findHome(), 'ml/.venv/bin/python'), [here('put_racer.py')], environment)))
    try {
      // imports take seconds: nobody starts before all are there
      await Promise.all(racers.map((r) => r.put([])))
      const start = performance.now()
      const tally = { winnersPerRound: {} as Record<string, number>, misreadRounds: 0 }
      const winners = new Set<number>()
      for (let first = 0; first < rounds; first += batch) {
        const keys = Array.from({ length: Math.min(batch, rounds - first) }, (_, i) => `race/${first + i}`)
        const isNeckAndNeck = (first / batch) % 2 === 0
        const answers = await Promise.all(racers.map((r, i) => r.put(isNeckAndNeck ? keys : rotated(keys, Math.floor((i * keys.length) / processes)))))
        for (const key of keys) count(answers.map((a) => a.get(key)), tally, winners)
      }
      return { rounds, processes, ...tally, distinctWinners: winners.size, seconds: Math.round((performance.now() - start) / 100) / 10 }
    } finally {
      await Promise.all(racers.map((r) => r.close()))
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

type Outcome = { won: boolean; held: string } | undefined

const count = (outcomes: Outcome[], tally: { winnersPerRound: Record<string, number>; misreadRounds: number }, winners: Set<number>): void => {
  const won = outcomes.flatMap((o, i) => (o?.won === true ? [i] : []))
  tally.winnersPerRound[won.length] = (tally.winnersPerRound[won.length] ?? 0) + 1
  const name = outcomes[won[0] ?? -1]?.held
  if (name === undefined || name === '' || outcomes.some((o) => o?.held !== name)) tally.misreadRounds += 1
  for (const i of won) winners.add(i)
}

const rotated = (keys: string[], by: number): string[] => [...keys.slice(by), ...keys.slice(0, by)]

const racer = (program: string, args: string[], environment: Record<string, string>) => {
  const home = findHome()
  const child = spawn(program, args, { env: { ...environment, CPT_HOME: home, PYTHONPATH: join(home, 'ml') }, stdio: ['pipe', 'pipe', 'pipe'] })
  const said: string[] = []
  child.stderr.on('data', (data: Buffer) => said.push(data.toString('utf8')))
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  return {
    put: async (keys: string[]): Promise<Map<string, { won: boolean; held: string }>> => {
      child.stdin.write(`${JSON.stringify(keys)}\n`)
      const line = await lines.next()
      if (line.done === true) throw new Error(`a racer ended: ${said.join('').slice(-2_000)}`)
      const answers = JSON.parse(line.value) as [boolean, string][]
      return new Map(keys.map((key, i) => [key, { won: answers[i]?.[0] ?? false, held: answers[i]?.[1] ?? '' }]))
    },
    close: async (): Promise<void> => {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.stdin.end()
      await once(child, 'exit')
    },
  }
}
