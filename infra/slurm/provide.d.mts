/** Throws a SetupError ({message, fix}) when Slurm is missing and cannot be installed. */
export function provideSlurm(options?: { say?: (line: string) => void }): Promise<void>
