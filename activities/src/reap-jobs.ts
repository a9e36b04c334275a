import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { WorkflowNotFoundError, type Client } from '@temporalio/client'
import type { ReapReport } from '@cpt/contracts/activities'
import { askerOf, jobsOfAsker, withdrawAsker } from './claims.ts'
import { namespaceIdOf, whoIs, type AskerName } from './askers.ts'
import type { Deps } from './deps.ts'
import type { JobFolder, JobRunner } from './job-runner/job-runner.ts'
import { writeEnd } from './job-runner/job-files.ts'

const graceMs = 20_000
/** What is too much for one report waits for the next round. */
const mostAtOnce = 200

interface Open {
  runner: JobRunner | undefined
  job: JobFolder
}

/**
 * Stops the jobs that nobody can want any more: all who asked for them are runs which this server says are closed, or
 * does not know. Who cannot be asked about counts as living; so does a run of another server.
 */
export const reapJobs =
  ({ workDir, runners, client }: Pick<Deps, 'workDir' | 'runners' | 'client'>) =>
  async (): Promise<ReapReport> => {
    const ask = whyClosed(client, await namespaceIdOf(client))
    const open = new Map<string, Open>()
    for (const asker of await readdir(join(workDir, 'askers')).catch(() => [])) {
      for (const { runner, job } of await jobsOfAsker(workDir, asker)) {
        if (existsSync(job.path) && !existsSync(join(job.path, 'end.json'))) open.set(job.path, { runner: runners[runner], job })
      }
    }
    const report: ReapReport = { looked: open.size, stopped: [], left: [] }
    for (const { runner, job } of open.values()) {
      if (report.stopped.length + report.left.length === mostAtOnce) break
      const askers = await readdir(join(job.path, 'askers')).catch(() => [])
      const names = await Promise.all(askers.map((asker) => whoIs(workDir, asker)))
      const verdicts = await Promise.all(names.map(async (name) => (name === null ? 'unknown' : await ask(name))))
      // a job without a single asker was left by somebody who is stopping it now
      if (askers.length === 0 || verdicts.some((v) => v === null)) continue
      const what = { job: job.path.slice(workDir.length + 1), askedBy: names.map((name) => (name === null ? 'nobody known' : `${name.workflowId}: ${name.key}`)) }
      const leave = (why: string): void => void report.left.push({ ...what, why })
      if (verdicts.includes('unknown')) leave('who asked for it is not on record, or belongs to another server')
      else if (runner === undefined) leave('this worker does not know its runner')
      else {
        const why = await reap(runner, job, askers)
        if (why === null) report.stopped.push({ ...what, why: [...new Set(verdicts)].join('; ') })
        else leave(why)
      }
    }
    return report
  }

/** Withdraws all askers and stops the job; says why it was left where it was. */
const reap = async (runner: JobRunner, job: JobFolder, askers: string[]): Promise<string | null> => {
  const state = await runner.look(job)
  if (state.state === 'ended') return 'it has ended by itself'
  if (state.state === 'unknown') return `it cannot be asked after: ${state.why}`
  for (const asker of askers) {
    const { othersAsk } = await withdrawAsker(job, asker)
    if (othersAsk) return 'somebody has just asked for it'
  }
  if (state.state === 'gone') await writeEnd(job, state.end)
  else await runner.stop(job, graceMs)
  return null
}

type Verdict = string | null

/** Why a run cannot want its jobs any more; null while it can, 'unknown' where this server cannot say. */
const whyClosed = (client: Client, namespaceId: string): ((name: AskerName) => Promise<Verdict>) => {
  const answers = new Map<string, Promise<Verdict>>()
  const askServer = async (name: AskerName): Promise<Verdict> => {
    if (name.namespaceId !== namespaceId) return 'unknown'
    try {
      const { status, raw } = await client.workflow.getHandle(name.workflowId).describe()
      const chain = raw.workflowExecutionInfo?.firstRunId
      if (chain !== undefined && chain !== null && chain !== '' && chain !== name.firstRunId) return `${name.workflowId} is over, another run has its id`
      return ['COMPLETED', 'FAILED', 'CANCELLED', 'TERMINATED', 'TIMED_OUT'].includes(status.name) ? `${name.workflowId} is ${status.name.toLowerCase()}` : null
    } catch (e) {
      if (e instanceof WorkflowNotFoundError) return `${name.workflowId} is not known to the server`
      throw e
    }
  }
  return (name) => {
    const run = `${name.namespaceId}/${askerOf(name.workflowId, name.firstRunId, '')}`
    const answer = answers.get(run) ?? askServer(name)
    answers.set(run, answer)
    return answer
  }
}
