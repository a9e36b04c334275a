import type { Config } from '../config.ts'
import type { ArtifactStore } from './artifact-store.ts'
import { localDiskStore } from './local-disk.ts'
import { s3Store } from './s3.ts'

/** The store that the configuration names. Opening does no work and loads no SDK: the first use does. */
export const openStore = ({ roots, buckets, s3, cacheDir }: Pick<Config, 'roots' | 'buckets' | 's3' | 'cacheDir'>): ArtifactStore =>
  s3 === null ? localDiskStore(roots, buckets) : s3Store(roots, s3, cacheDir, buckets)
