import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { checkInput, type Problem } from '@cpt/contracts/parse-input'
import { Name } from '@cpt/contracts/units'
import { parse } from 'yaml'
import { z } from 'zod'
import { CliError, messageOf } from '../cli-error.ts'
import { startable, startableTypes } from '../startable.ts'

const weekDays = ['SUNDAY', 'MONDAY', 'TUESDAY', 'WEDNESDAY', 'THURSDAY', 'FRIDAY', 'SATURDAY'] as const
const months = ['JANUARY', 'FEBRUARY', 'MARCH', 'APRIL', 'MAY', 'JUNE', 'JULY', 'AUGUST', 'SEPTEMBER', 'OCTOBER', 'NOVEMBER', 'DECEMBER'] as const
const everyOne = z.literal('*')
const oneOrMore = <T extends z.ZodType>(one: T, words: string) => z.union([everyOne, one, z.array(one).min(1)], `expected "*", ${words} or a list of them`)
const numbers = (least: number, most: number) => oneOrMore(z.int().min(least).max(most), `a whole number from ${least} to ${most}`)

/** Times of the day by the clock of the schedule's time zone; what is left out is every day. */
const Calendar = z.strictObject({
  hour: numbers(0, 23),
  minute: numbers(0, 59),
  dayOfWeek: oneOrMore(z.enum(weekDays), 'a day such as MONDAY').optional(),
  dayOfMonth: numbers(1, 31).optional(),
  month: oneOrMore(z.enum(months), 'a month such as JANUARY').optional(),
})

const Duration = z.string().regex(/^[1-9]\d*[smhd]$/, 'expected a duration such as 30s, 10m, 12h or 7d')

/** Schedules whose next run waits for, or is left out because of, the one before it. */
const held = ['SKIP', 'BUFFER_ONE', 'BUFFER_ALL'] as const

const Policies = z.strictObject({
  /** What becomes of a run whose predecessor is still under way. Terminating is not offered: it stops no job. */
  overlap: z.enum([...held, 'CANCEL_OTHER', 'ALLOW_ALL']),
  /** How late a run may begin when the server was away at its time. */
  catchupWindow: Duration,
  /** Whether a run that fails pauses the schedule. */
  pauseOnFailure: z.boolean(),
})

const knowsZone = (zone: string): boolean => {
  try {
    return Intl.DateTimeFormat('en', { timeZone: zone }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}

/** One schedule as code: a file of infra/schedules. Nothing that decides when something runs has a silent default. */
export const ScheduleFile = z
  .strictObject({
    id: Name,
    workflow: z.enum(startableTypes),
    description: z.string().max(400).default(''),
    calendars: z.array(Calendar).min(1).max(100),
    timeZone: z.string().refine(knowsZone, 'expected a time zone such as Europe/Berlin or UTC'),
    jitter: Duration.optional(),
    policies: Policies,
    input: z.looseObject({ name: Name }),
  })
  .superRefine(({ workflow, policies, input }, ctx) => {
    if (workflow === 'almrLrSweep' && input['parkedTrials'] !== 'leave' && (held as readonly string[]).includes(policies.overlap))
      ctx.addIssue({ code: 'custom', path: ['input', 'parkedTrials'], message: `expected leave: a trial that waits for a person would hold back every later run under overlap ${policies.overlap}` })
  })
export type ScheduleFile = z.infer<typeof ScheduleFile>

/** A schedule as written, with every problem by path: of the file itself, and of the input by the schema of its workflow. */
export const checkSchedule = (value: unknown): { schedule: ScheduleFile; problems: null } | { schedule: null; problems: Problem[] } => {
  const { data, problems } = checkInput(ScheduleFile, value)
  const input = typeof value === 'object' && value !== null && 'input' in value ? value.input : undefined
  const type = z.object({ workflow: z.enum(startableTypes) }).safeParse(value).data?.workflow
  const ofInput = type === undefined || input === undefined ? [] : (checkInput(startable[type].input, input).problems ?? []).map((p) => ({ ...p, path: p.path === '(input)' ? 'input' : `input.${p.path}` }))
  const all = new Map([...(problems ?? []), ...ofInput].map((p) => [p.path, p]))
  if (data !== null && all.size === 0) return { schedule: data, problems: null }
  return { schedule: null, problems: [...all.values()] }
}

/** Reads a YAML or JSON file. Throws a CliError that names the file and everything wrong in it. */
export const readSchedule = (file: string): ScheduleFile => {
  let value: unknown
  try {
    value = parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw new CliError('usage', `${file}: ${messageOf(error)}`, 'Give a YAML or JSON file as those in infra/schedules.')
  }
  const { schedule, problems } = checkSchedule(value)
  if (problems === null) return schedule
  const lines = problems.map((p) => `  ${p.path}: expected ${p.expected}, got ${p.got}`)
  throw new CliError('usage', `${basename(file)}: ${problems.length === 1 ? 'a problem' : `${problems.length} problems`}; nothing was applied\n${lines.join('\n')}`, 'docs/schedules.md says what a schedule consists of, `cpt schema <workflow>` what its input may be.')
}
