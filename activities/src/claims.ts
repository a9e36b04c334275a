import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { ArtifactStore } from './artifact-store/artifact-store.ts'
import type { JobFolder } from './job-runner/job-runner.ts'

/** Who asked for an attempt, and how far the work was when it was claimed (the budget counts failures without progress). */
export const Claim = z.object({ workflow: z.string(), run: z.string(), key: z.string(), decision: z.int(), runner: z.string(), host: z.string(), progress: z.string(), at: z.string() })
export type Claim = z.infer<typeof Claim>

const claimFolder = (fingerprint: string, range: number): string => `claims/${fingerprint.slice(0, 2)}/${fingerprint}/${range}/`

/** All claims of a range, attempt 1 first. */
export const claimsOf = async (store: ArtifactStore, fingerprint: string, range: number): Promise<Claim[]> => {
  const claims: Claim[] = []
  for (let attempt = 1; ; attempt++) {
    const bytes = await store.get(`${claimFolder(fingerprint, range)}${attempt}.json`)
    if (bytes === null) return claims
    claims.push(Claim.parse(JSON.parse(Buffer.from(bytes).toString('utf8'))))
  }
}

/** Claims attempt `n` for `claim`; false when someone else was quicker. The caller has proof that attempt n − 1 is over. */
export const claimAttempt = (store: ArtifactStore, fingerprint: string, range: number, attempt: number, claim: Claim): Promise<boolean> =>
  store.putIfAbsent(`${claimFolder(fingerprint, range)}${attempt}.json`, Buffer.from(JSON.stringify(claim)))

/** Folder of an attempt's request, beats and end record. */
export const jobFolder = (root: string, fingerprint: string, range: number, attempt: number): JobFolder => ({
  path: join(root, 'jobs', fingerprint.slice(0, 2), fingerprint, String(range), String(attempt)),
  fingerprint,
  range,
  attempt,
})

/** Raises the lease counter of a job, which lives as long as someone does this. */
export const renewLease = async (job: JobFolder, asker: string, counter: number): Promise<void> => {
  await writeFile(join(job.path, 'lease'), `${asker} ${counter}`)
  await writeFile(join(job.path, 'askers', asker), String(counter))
}

/** Puts `asker` down as one who wants this job, findable by asker alone (for the clean-up after a stage was left). */
export const enterAsker = async (root: string, job: JobFolder, asker: string): Promise<void> => {
  await mkdir(join(job.path, 'askers'), { recursive: true })
  await mkdir(join(root, 'askers'), { recursive: true })
  await writeFile(join(root, 'askers', `${asker}.json`), JSON.stringify(job))
}

/** Withdraws `asker` and tells whether someone else renewed the lease lately: the last one to go stops the job. */
export const withdrawAsker = async (job: JobFolder, asker: string, leaseSeconds: number): Promise<{ othersAsk: boolean }> => {
  const folder = join(job.path, 'askers')
  await rm(join(folder, asker), { force: true })
  const names = await readdir(folder).catch(() => [])
  const agesMs = await Promise.all(names.map(async (n) => Date.now() - (await stat(join(folder, n))).mtimeMs))
  return { othersAsk: agesMs.some((ms) => ms < leaseSeconds * 1000) }
}

/** The job that `asker` asked for last, or null. */
export const jobOfAsker = async (root: string, asker: string): Promise<JobFolder | null> => {
  const text = await readFile(join(root, 'askers', `${asker}.json`), 'utf8').catch(() => null)
  return text === null ? null : z.object({ path: z.string(), fingerprint: z.string(), range: z.int(), attempt: z.int() }).parse(JSON.parse(text))
}

/** Name of one line of one run as an asker. */
export const askerOf = (workflowId: string, runId: string, key: string): string => createHash('sha256').update(`${workflowId}/${runId}/${key}`).digest('hex').slice(0, 32)
