import type { ProcessIdentity } from './process-identity.mjs'

export function tryLock(path: string): { release: () => void; holder?: undefined } | { holder: ProcessIdentity; release?: undefined }
