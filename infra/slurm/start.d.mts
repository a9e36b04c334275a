export interface Daemon {
  readonly name: string
  /** null while it does not run. */
  readonly pid: number | null
  start(): Promise<void>
  /** Ends it (SIGKILL unless said otherwise) and waits until it is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>
  /** Holds it: it keeps its sockets and answers nobody. */
  pause(): void
  resume(): void
  /** Its last lines. */
  log(): string
}

/** A real Slurm of this machine alone. */
export interface Slurm {
  folder: string
  /** Path of slurm.conf. */
  conf: string
  cluster: string
  /** What a client program needs of an environment: SLURM_CONF and PATH. */
  env: { SLURM_CONF: string; PATH: string }
  ctld: Daemon
  /** One for each node, by its name. */
  slurmds: Record<string, Daemon>
  /** Keeps the accounts; null without accounting. */
  dbd: Daemon | null
  run(program: string, args: string[], options?: { timeoutMs?: number }): Promise<{ code: number | string; stdout: string; stderr: string }>
  /** Like run, but a failure throws; returns what the program wrote. */
  mustRun(program: string, args: string[]): Promise<string>
  /** Numbers of all processes that live for this cluster, those of jobs too. */
  processes(): number[]
  /** Ends every daemon and whatever jobs are left, and removes the folder. */
  stop(): Promise<void>
}

export interface SlurmOptions {
  /** Names of virtual nodes, each with a slurmd of its own on this machine. */
  nodes?: string[]
  cpus?: number
  memoryMiB?: number
  partitions?: { name: string; nodes?: string; options?: string }[]
  /** Lines of slurm.conf, beside and over the compressed time-outs. */
  settings?: Record<string, string | number>
  /** With MariaDB and slurmdbd, so that sacct answers. */
  accounting?: boolean
}
export function startSlurm(options?: SlurmOptions): Promise<Slurm>
