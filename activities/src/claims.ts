import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { RunnerName } from '@cpt/contracts/job'
import { z } from 'zod'
import type { ArtifactStore } from './artifact-store/artifact-store.ts'
import { draftsIn } from './artifact-store/drafts.ts'
import type { JobFolder } from './job-runner/job-runner.ts'
import { replaceFile } from './replace-file.ts'

/** Who asked for an attempt, and how far the work was when it was claimed (the budget counts failures without progress). */
export const Claim = z.object({ workflow: z.string(), run: z.string(), key: z.string(), decision: z.int(), runner: RunnerName, host: z.string(), progress: z.string(), at: z.string() })
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
export const jobFolder = (workDir: string, fingerprint: string, range: number, attempt: number): JobFolder => ({
  path: join(workDir, 'jobs', fingerprint.slice(0, 2), fingerprint, String(range), String(attempt)),
  fingerprint,
  range,
  attempt,
})

/** Raises the lease counter of a job, which lives as long as someone does this. */
export const renewLease = async (job: JobFolder, asker: string, counter: number): Promise<void> => {
  await writeFile(join(job.path, 'lease'), `${asker} ${counter}`)
  await writeFile(join(job.path, 'askers', asker), String(counter))
}

const AskedFor = z.object({ runner: RunnerName, job: z.object({ path: z.string(), fingerprint: z.string(), range: z.int(), attempt: z.int() }) })

/** Puts `asker` down as one who wants this job, findable by asker alone (for the clean-up after a stage was left). */
export const enterAsker = async (workDir: string, runner: RunnerName, job: JobFolder, asker: string): Promise<void> => {
  await mkdir(join(job.path, 'askers'), { recursive: true })
  await mkdir(join(workDir, 'askers', asker), { recursive: true })
  await replaceFile(join(workDir, 'askers', asker, `${job.fingerprint.slice(0, 16)}-${job.range}.json`), JSON.stringify({ runner, job }), { drafts: draftsIn(workDir) })
}

/** How long the other askers are watched: a worker that watches renews several times a second. */
const othersWatchedMs = 2_000

/** Withdraws `asker` and tells whether someone else still renews the lease: the last one to go stops the job. */
export const withdrawAsker = async (job: JobFolder, asker: string): Promise<{ othersAsk: boolean }> => {
  await rm(join(job.path, 'askers', asker), { force: true })
  return { othersAsk: await isRenewedBy(job, () => true) }
}

/** Whether an asker that `counts` renews the job's lease now: counters are compared, not times, since hosts' clocks differ. */
export const isRenewedBy = async (job: JobFolder, counts: (asker: string) => boolean): Promise<boolean> => {
  const folder = join(job.path, 'askers')
  const counters = async (): Promise<Map<string, string>> => {
    const names = (await readdir(folder).catch(() => [])).filter(counts)
    return new Map(await Promise.all(names.map(async (name) => [name, await readFile(join(folder, name), 'utf8').catch(() => '')] as const)))
  }
  const before = await counters()
  const until = performance.now() + othersWatchedMs
  while (before.size > 0 && performance.now() < until) {
    await delay(100)
    for (const [name, counter] of await counters()) if (counter !== before.get(name)) return true
  }
  return false
}

/** The jobs that `asker` asked for last, one for each range. */
export const jobsOfAsker = async (workDir: string, asker: string): Promise<z.infer<typeof AskedFor>[]> => {
  const folder = join(workDir, 'askers', asker)
  const names = (await readdir(folder).catch(() => [])).filter((n) => n.endsWith('.json'))
  return await Promise.all(names.map(async (n) => AskedFor.parse(JSON.parse(await readFile(join(folder, n), 'utf8')))))
}

/** Name of one line of one run as an asker. */
export const askerOf = (workflowId: string, runId: string, key: string): string => createHash('sha256').update(`${workflowId}/${runId}/${key}`).digest('hex').slice(0, 32)
