export function missingPackages(programs: Record<string, string>): string[]
/** Throws a SetupError ({message, fix}) where it may not install. */
export function provideDebianPrograms(programs: Record<string, string>, purpose: string, options?: { say?: (line: string) => void }): Promise<void>
export function provideStrace(options?: { say?: (line: string) => void }): Promise<void>
