export interface ProcessIdentity {
  pid: number
  start: string
}
export function startOf(pid: number): string | null
export function identify(pid?: number): ProcessIdentity | null
export function isAlive(identity: ProcessIdentity): boolean
