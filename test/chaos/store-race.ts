import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { raceForKeys, type RaceResult } from '@cpt/activities/artifact-store/race'
import { startS3 } from '../../infra/s3/start.mjs'

export type StoreRace = RaceResult & { store: 'disk' | 's3' }

/** Eight processes race for one record, ten thousand times, on a disk and on an S3 server. */
export const raceOnStores = async ({ rounds = 10_000, processes = 8 } = {}): Promise<StoreRace[]> => {
  const folder = await mkdtemp(join(tmpdir(), 'cpt-store-race-'))
  const server = await startS3()
  try {
    const disk = await raceForKeys({ CPT_STORE: join(folder, 'store') }, { rounds, processes })
    const s3 = await raceForKeys({ ...server.env, CPT_STORE: `s3://${server.bucket}/race`, CPT_CACHE: join(folder, 'cache') }, { rounds, processes })
    return [{ store: 'disk', ...disk }, { store: 's3', ...s3 }]
  } finally {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const rounds = Number(process.argv[2] ?? 10_000)
  for (const result of await raceOnStores({ rounds })) process.stdout.write(`${JSON.stringify(result)}\n`)
}
