/** The browser of the browser tests, or null. */
export function findChromium(env?: Record<string, string | undefined>): string | null
export function provideChromium(): Promise<string>
