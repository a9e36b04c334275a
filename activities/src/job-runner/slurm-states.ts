import { constants } from 'node:os'
import { exitClass, type EndRecord, type SchedulerState } from '@cpt/contracts/job'
import type { LastWords } from './job-runner.ts'

/** How a scheduler's word for a job is to be read: it waits, it runs, or it is over. */
export type Phase = 'waiting' | 'running' | 'over'

const waiting = new Set(['PENDING', 'CONFIGURING', 'REQUEUED', 'REQUEUE_HOLD', 'REQUEUE_FED', 'RESV_DEL_HOLD', 'SPECIAL_EXIT', 'SUSPENDED', 'STOPPED'])
const over = new Set(['BOOT_FAIL', 'CANCELLED', 'COMPLETED', 'DEADLINE', 'FAILED', 'NODE_FAIL', 'OUT_OF_MEMORY', 'PREEMPTED', 'REVOKED', 'TIMEOUT'])

/** COMPLETING, SIGNALING, RESIZING and what later versions add: something of the job may still be there. */
export const phaseOf = (state: string): Phase => (waiting.has(state) ? 'waiting' : over.has(state) ? 'over' : 'running')

const reasons: Readonly<Record<string, string>> = {
  Resources: 'no free node of this size',
  Priority: 'other jobs come first',
  Dependency: 'an earlier attempt of this work has not left yet',
  QOSMaxJobsPerUserLimit: 'this user has as many jobs as the QOS allows',
  AssocMaxJobsLimit: 'this account has as many jobs as it may',
  PartitionDown: 'the partition is down',
  PartitionInactive: 'the partition is inactive',
  JobHeldUser: 'someone holds it: scontrol release',
  JobHeldAdmin: 'an administrator holds it',
  BeginTime: 'its begin time is not reached',
  None: 'not looked at yet',
}

/** Why a job waits, in the scheduler's word and ours. */
export const waitingReason = (state: string, reason: string): string => {
  const known = reasons[reason] ?? (/^ReqNodeNotAvail|^Nodes required for job are/.test(reason) ? 'nodes it needs are down, drained or reserved' : '')
  const word = state === 'PENDING' ? reason : `${state}, ${reason}`
  return known === '' ? `Slurm: ${word}` : `Slurm: ${word} (${known})`
}

const classOfState: Readonly<Record<string, EndRecord['endClass']>> = {
  TIMEOUT: 'time-limit', DEADLINE: 'time-limit', NODE_FAIL: 'node-lost', BOOT_FAIL: 'node-lost', PREEMPTED: 'preempted', REVOKED: 'preempted', OUT_OF_MEMORY: 'killed', CANCELLED: 'killed', COMPLETED: 'vanished',
}

const signalNames = new Map<number, string>(Object.entries(constants.signals).map(([name, number]) => [number, name]))

/** How a job ended that left no end record, from what the scheduler knows. `exitCode` is Slurm's `code:signal`. */
export const lastWords = (scheduler: SchedulerState): LastWords => {
  const [code = 0, number = 0] = scheduler.exitCode.split(':').map(Number)
  const signal = number > 0 ? (signalNames.get(number) ?? `signal ${number}`) : null
  const byState = classOfState[scheduler.state]
  const endClass = byState ?? (signal !== null ? 'killed' : (exitClass[code] ?? 'failed'))
  const where = scheduler.nodes.length > 0 ? ` on ${scheduler.nodes.join(', ')}` : ''
  const how = signal !== null ? `, ended by ${signal}` : code !== 0 ? `, exit code ${code}` : ''
  const reason = ['None', '', 'NonZeroExitCode'].includes(scheduler.reason) ? '' : ` (${scheduler.reason})`
  return {
    endClass, exitCode: byState === undefined && signal === null ? code : null, signal: endClass === 'killed' ? signal ?? 'SIGKILL' : signal, scheduler,
    message: `Slurm job ${scheduler.job} is ${scheduler.state}${reason}${how}${where}, and it left no end record`,
  }
}

const refusals = [
  /invalid (partition|account|qos|feature|generic resource|node name|reservation|job array|time limit|wckey|directory)/i,
  /requested (node configuration|partition configuration|time limit|reservation|topology)/i,
  /(node count|memory) specification (is )?(invalid|can not be satisfied)/i,
  /more processors requested than permitted/i,
  /(access|permission) denied/i,
  /job violates accounting\/qos policy/i,
  /user's group not permitted/i,
  /(invalid|unrecognized|ambiguous|unknown) option/i,
  /unable to open file/i,
  /pathname of a file, directory or other parameter too long/i,
  /ENOENT|EACCES/,
]
const later = /MaxSubmitJob|AssocMaxSubmit|QOSMaxSubmit|maximum number of jobs|Resource temporarily unavailable|temporarily unable to accept job/i

/**
 * What the words of a failed `sbatch` mean: `refused` for good (nothing was submitted, nothing will be), `later` (nothing
 * was submitted, the queue is full), or `unsure`: everything else, since a job may exist whose answer was lost.
 */
export const meaningOf = (words: string): 'refused' | 'later' | 'unsure' => (later.test(words) ? 'later' : refusals.some((r) => r.test(words)) ? 'refused' : 'unsure')
