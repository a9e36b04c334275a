import { setTimeout as sleep } from 'node:timers/promises'
import type { RunProgress } from '@cpt/contracts/cpt-run'
import { messageOf } from '../cli-error.ts'
import { runPage, type Session } from '../connect.ts'
import { aborted } from '../interruption.ts'
import { look, type Sight } from './look.ts'
import { screen, type Screen } from './screen.ts'
import { liveWords, parkedWords, stageWords } from './words.ts'

const everyMs = 700
const silentMs = 8_000
const open = ['RUNNING', 'CONTINUED_AS_NEW', 'PAUSED', 'UNSPECIFIED']

export type Ending = { how: 'completed' | 'failed'; status: string; progress: RunProgress | null } | { how: 'interrupted' }

/** Prints what is new since the last look: ended stages, decisions to take, and one line of what runs. */
const tellNews = (sight: Sight, told: Set<string>, on: Screen, parked: (p: RunProgress['parked'][number]) => string): void => {
  const { progress, live } = sight
  if (progress === null) return
  for (const line of progress.stages) {
    if (line.state === 'running' || line.state === 'parked' || line.state === 'paused') continue
    const id = `${line.key} ${line.state} ${line.startedAtMs}`
    if (told.has(id)) continue
    told.add(id)
    on.print(stageWords(line))
  }
  for (const p of progress.parked) {
    const id = `${p.stage} park ${p.park}`
    if (told.has(id)) continue
    told.add(id)
    on.print(parked(p))
  }
  for (const w of progress.waits ?? []) {
    const id = `${w.workflowId} ${w.stage} park ${w.park}`
    if (told.has(id)) continue
    told.add(id)
    on.print(parkedWords({ ...w, logTail: [], sinceMs: 0 }, w.workflowId, null))
  }
  const running = live.length > 0 ? live.map(liveWords) : progress.stages.filter((s) => s.state === 'running').map((s) => s.key)
  const numWaiting = progress.parked.length + (progress.waits ?? []).length
  const waiting = numWaiting > 0 ? [`${numWaiting} waiting for a decision`] : []
  on.status([...(progress.paused ? ['paused'] : []), ...running, ...waiting].join('  |  ') || progress.current)
}

/** Follows a run until it ends or `cancel` is aborted; a server or worker that is away is waited for. */
export const watch = async (session: Session, workflowId: string, named: string, cancel: AbortSignal, on: Screen = screen()): Promise<Ending> => {
  const told = new Set<string>()
  let heardMs = performance.now()
  const page = runPage(session, workflowId)
  const left = aborted(cancel)
  try {
    while (!cancel.aborted) {
      try {
        // a server that is away may leave the question hanging, and Ctrl-C is to work all the same
        const sight = await Promise.race([look(session, workflowId), left])
        if (sight === undefined) break
        tellNews(sight, told, on, (p) => parkedWords(p, named, page))
        if (!open.includes(sight.status)) return { how: sight.status === 'COMPLETED' ? 'completed' : 'failed', status: sight.status, progress: sight.progress }
        if (sight.progress !== null) heardMs = performance.now()
        else if (performance.now() - heardMs > silentMs) on.status('no worker answers; the run goes on when one does')
      } catch (error) {
        if (performance.now() - heardMs > silentMs) on.status(`the server cannot be asked (${messageOf(error).slice(0, 80)}); trying again`)
      }
      await sleep(everyMs, undefined, { signal: cancel }).catch(() => undefined)
    }
    return { how: 'interrupted' }
  } finally {
    on.close()
  }
}
