const beatSeconds = 10

/** What went wrong and what to do about it; printed without a stack. */
export class SetupError extends Error {
  constructor(what, fix) {
    super(what)
    this.fix = fix
  }
}

export const say = (text) => process.stderr.write(`${text}\n`)

/** Runs a slow step: says that it starts, every ten seconds that it lives, and how long it took. */
export const slowStep = async (title, work, measure = () => '') => {
  const start = performance.now()
  const seconds = () => Math.round((performance.now() - start) / 1000)
  say(`→ ${title}`)
  const beat = setInterval(() => say(`  … ${title.split(' (')[0]}: ${seconds()} s${measure()}`), beatSeconds * 1000)
  try {
    const result = await work()
    say(`✓ ${title.split(' (')[0]} (${seconds()} s)`)
    return result
  } finally {
    clearInterval(beat)
  }
}

/** Ends the process as a person expects: the message, what to do, exit code 1. */
export const main = async (work) => {
  try {
    await work()
  } catch (error) {
    if (!(error instanceof SetupError)) throw error
    say(`\n✗ ${error.message}\n  ${error.fix.split('\n').join('\n  ')}`)
    process.exitCode = 1
  }
}
