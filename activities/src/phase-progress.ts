import { CheckpointRecord } from '@cpt/contracts/artifact'
import type { ArtifactStore } from './artifact-store/artifact-store.ts'

/**
 * The newest checkpoint of a fingerprint, '' where there is none: attempts that began at the same one made no progress. What a
 * guarded training saves before its first step holds no work, so it is none.
 */
export const phaseProgress = async (store: Pick<ArtifactStore, 'list' | 'get'>, fingerprint: string): Promise<string> => {
  const keys = await store.list(`checkpoints/${fingerprint.slice(0, 2)}/${fingerprint}/`)
  const newest = keys.at(-1)
  if (newest === undefined || keys.length > 1) return newest ?? ''
  return isBeginning(await store.get(newest)) ? '' : newest
}

const isBeginning = (bytes: Uint8Array | null): boolean => {
  try {
    return CheckpointRecord.parse(JSON.parse(Buffer.from(bytes ?? '').toString('utf8'))).tokens === 0
  } catch {
    return false
  }
}
