export function checkNode(version?: string): void
export function findPython(names?: string[]): Promise<{ path: string; version: string }>
