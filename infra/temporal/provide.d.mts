export interface TemporalCli {
  path: string
  version: string
  from: 'PATH' | 'cache'
}
export function findTemporal(): Promise<TemporalCli | null>
/** Throws a SetupError ({message, fix}) when there is no way to get one. */
export function provideTemporal(options?: { say?: (line: string) => void }): Promise<TemporalCli>
