export function provideBenchPython(): Promise<string>
