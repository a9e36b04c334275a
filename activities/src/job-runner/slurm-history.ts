import type { SchedulerState } from '@cpt/contracts/job'
import { addressOf, type Row, type SlurmCommand } from './slurm-commands.ts'
import type { Submission } from './slurm-submissions.ts'

/** A list of hosts as Slurm writes it (`n[1-3,7],gpu2`), in single names. */
export const expandNodes = (text: string): string[] => {
  if (['', '(null)', 'None assigned'].includes(text)) return []
  const groups = text.match(/[^,[]+(?:\[[^\]]*\])?[^,[]*/g) ?? []
  return groups.flatMap((group) => {
    const [, before, inside, after] = /^([^[]*)\[([^\]]*)\](.*)$/.exec(group) ?? []
    if (before === undefined || inside === undefined) return [group]
    return inside.split(',').flatMap((part) => {
      const [low = '', high = low] = part.split('-')
      return Array.from({ length: Number(high) - Number(low) + 1 }, (_, i) => `${before}${String(Number(low) + i).padStart(low.length, '0')}${after ?? ''}`)
    })
  })
}

/** What the controller still knows of a finished job, exit code included; null within no time after MinJobAge. */
export const recentJob = async (run: SlurmCommand, row: Row): Promise<SchedulerState | null> => {
  const { code, stdout } = await run('scontrol', ['show', 'job', '--oneliner', addressOf(row)])
  const field = (name: string): string => new RegExp(` ${name}=(\\S*)`).exec(` ${stdout}`)?.[1] ?? ''
  // the number may belong to another job by now
  if (code !== 0 || field('SubmitTime') !== row.submitTime) return null
  return { job: addressOf(row), state: field('JobState'), reason: field('Reason'), exitCode: field('ExitCode'), nodes: expandNodes(field('NodeList')) }
}

/** What the accounts know of a job that the controller has forgotten: the one of this number, name and submit time, or null. */
export const forgottenJob = async (run: SlurmCommand, jobId: string, submissions: Submission[]): Promise<SchedulerState | null> => {
  const { code, stdout } = await run('sacct', ['--duplicates', '--allocations', '--parsable2', '--noheader', `--jobs=${jobId}`, '--starttime=now-30days', '--format=JobIDRaw,Submit,State,ExitCode,NodeList,JobName'])
  if (code !== 0) return null
  for (const line of stdout.split('\n')) {
    const [id, submit, state = '', exitCode = '', nodes = '', ...name] = line.split('|')
    if (id !== jobId || !submissions.some((s) => s.name === name.join('|') && s.submitTime === submit)) continue
    // "CANCELLED by 1000"
    const [word = '', ...by] = state.split(' ')
    return { job: jobId, state: word, reason: by.join(' '), exitCode, nodes: expandNodes(nodes) }
  }
  return null
}
