const integers = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })
const compact = new Intl.NumberFormat('en-US', { notation: 'compact', minimumFractionDigits: 0, maximumFractionDigits: 2 })

const minus = (text: string): string => text.replace('-', '−')

export const count = (n: number): string => minus(integers.format(n))
/** 1,228,800 → 1.23M. */
export const short = (n: number): string => minus(compact.format(n))
export const plural = (n: number, one: string, many = `${one}s`): string => `${count(n)} ${n === 1 ? one : many}`
export const percent = (share: number, digits = 1): string => (Number.isFinite(share) ? minus(`${(share * 100).toFixed(digits)} %`) : '–')
export const fixed = (n: number | null | undefined, digits = 3): string => (n === null || n === undefined || !Number.isFinite(n) ? '–' : minus(n.toFixed(digits)))
/** With its sign, so that a rise and a fall can be told apart in a column. */
export const signed = (n: number, digits = 3): string => (Number.isFinite(n) ? `${n > 0 && Number(n.toFixed(digits)) !== 0 ? '+' : ''}${minus(n.toFixed(digits)).replace(/^−(0\.?0*)$/, '$1')}` : '–')
export const plusMinus = (n: number, se: number, digits = 3): string => `${signed(n, digits)} ± ${fixed(se, digits)}`
/** Fewer decimals for larger numbers: losses and perplexities stand in one column. */
export const decimals = (n: number): number => (Math.abs(n) >= 10 ? 1 : Math.abs(n) >= 1 ? 2 : 3)

/** exp(nats) has three meaningful figures at most. */
export const ppl = (n: number): string => (Number.isFinite(n) ? (n >= 1000 ? count(n) : n.toPrecision(n >= 100 ? 4 : 3)) : '–')

export const seconds = (s: number): string => {
  if (!Number.isFinite(s)) return '–'
  if (s < 10) return `${s.toFixed(1)} s`
  const whole = Math.round(s)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}

export const bytes = (n: number): string => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  const power = n < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(n) / 10))
  return `${power === 0 ? n : (n / 1024 ** power).toFixed(1)} ${units[power] ?? ''}`
}

/** 0.001 → 1e-3: how papers write learning rates. */
export const rate = (n: number): string => (n === 0 ? '0' : n.toExponential(2).replace(/\.?0+e/, 'e').replace('e+', 'e'))

export const utc = (ms: number): string => (Number.isFinite(ms) && Math.abs(ms) < 8.64e15 ? `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} UTC` : '–')
export const digest = (sha256: string): string => sha256.slice(0, 12)

/** zh → Chinese; a code that no name is known for stays as it is. */
export const languageName = (code: string): string => {
  try {
    return new Intl.DisplayNames(['en'], { type: 'language' }).of(code) ?? code
  } catch {
    return code
  }
}
