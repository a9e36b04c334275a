import { InvalidArgumentError } from 'commander'

const unitMs = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

/** 7d, 12h, 30m, 90s or 0, in milliseconds. Throws InvalidArgumentError. */
export const ageMs = (text: string): number => {
  const [, amount, unit] = /^(\d+)([smhd])$/.exec(text) ?? []
  if (text === '0') return 0
  if (amount === undefined || unit === undefined) throw new InvalidArgumentError('expected an age such as 7d, 12h, 30m or 0')
  return Number(amount) * unitMs[unit as keyof typeof unitMs]
}
