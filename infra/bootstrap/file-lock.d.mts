import type { ProcessIdentity } from './process-identity.mjs'

export function tryLock(path: string): { release: () => void; holder?: undefined } | { holder: ProcessIdentity; release?: undefined }
export function waitForLock(path: string, what: string, say: (line: string) => void): Promise<{ release: () => void }>
