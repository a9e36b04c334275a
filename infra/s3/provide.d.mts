export interface Versitygw {
  path: string
  from: 'PATH' | 'cache'
}
export function findVersitygw(): Promise<Versitygw | null>
/** Throws a SetupError ({message, fix}) when there is no way to get one. */
export function provideVersitygw(options?: { say?: (line: string) => void }): Promise<Versitygw>
