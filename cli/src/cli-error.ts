/** Exit codes of `cpt`, as `cpt --help` lists them. */
export const exitCodes = { failed: 1, usage: 2, unreachable: 3, conflict: 4, missing: 5, interrupted: 130 } as const

/** An error meant for a person: what is wrong, and what to do; printed without a stack. */
export class CliError extends Error {
  override readonly name = 'CliError'
  readonly fix: string
  readonly exit: keyof typeof exitCodes
  constructor(exit: keyof typeof exitCodes, what: string, fix: string) {
    super(what)
    this.exit = exit
    this.fix = fix
  }
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
