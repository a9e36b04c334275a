import { readFileSync } from 'node:fs'
import { Name } from '@cpt/contracts/units'
import { z } from 'zod'

const Word = z.string().regex(/^[^\s,%\\]+$/, 'expected one word without blanks, commas, % or backslashes')

/** What a pool asks of the scheduler; Placement names pools, this names the cluster's own things. */
export const SlurmPool = z.strictObject({
  partition: Word.optional(),
  account: Word.optional(),
  qos: Word.optional(),
  /** As in `sbatch --constraint`. */
  constraint: z.string().min(1).optional(),
  reservation: Word.optional(),
  /** Where Placement asks for none. */
  memoryMiB: z.int().min(1).optional(),
  /** `h100` in `--gpus-per-node=h100:4`. */
  gpuType: Word.optional(),
  /** The partition's limit: a longer job saves before it and goes on in the next one. */
  maxSeconds: z.int().min(60).optional(),
  excludeNodes: z.array(Word).default([]),
})
export type SlurmPool = z.infer<typeof SlurmPool>

/** CPT_SLURM: how a worker uses a cluster. Durations are in seconds. */
export const SlurmSettings = z.strictObject({
  /** ClusterName of slurm.conf; checked, so that a number of another cluster is never taken for ours. */
  cluster: Name.optional(),
  /** By name; `default` is used where Placement names none. */
  pools: z.record(Name, SlurmPool).refine((pools) => 'default' in pools, 'expected a pool named default'),
  /** slurm.conf, where the programs do not find it themselves. */
  conf: z.string().optional(),
  /** Folder of sbatch, squeue …, where they are not on PATH. */
  bin: z.string().optional(),
  /** Python with the project's environment, as the nodes see it. */
  python: z.string().optional(),
  /** Folder of the Python package, as the nodes see it. */
  mlDir: z.string().optional(),
  pollSeconds: z.number().min(0.1).default(3),
  /** How long a job lives without its watcher; CPT_LEASE_SECONDS where it is not given, and 6 hours without either. */
  leaseSeconds: z.number().positive().optional(),
  /** Between the signal to save and the time limit. */
  graceSeconds: z.int().min(5).default(120),
  /** Ranges submitted within this time become one array. */
  coalesceSeconds: z.number().min(0).default(0.3),
  /** After how long a pulse that stands still says of a job, unknown to the scheduler, that it is gone. */
  vanishedAfterSeconds: z.number().min(1).default(300),
  /** How long a file of a node may take to be seen here (attribute caches of NFS). */
  visibleWithinSeconds: z.number().min(0).default(60),
})
export type SlurmSettings = z.infer<typeof SlurmSettings>

/** Reads CPT_SLURM: JSON, or the path of a JSON file. Throws with the place and the reason of what is wrong. */
export const readSlurmSettings = (text: string): SlurmSettings => {
  const isJson = text.trimStart().startsWith('{')
  const where = isJson ? 'CPT_SLURM' : `CPT_SLURM (${text})`
  const parsed = SlurmSettings.safeParse(jsonOf(isJson ? text : readText(text), where))
  if (parsed.success) return parsed.data
  throw new Error(`${where}: ${parsed.error.issues.map((i) => `${i.path.join('.') || 'the whole'}: ${i.message}`).join('; ')}`)
}

const readText = (path: string): string => {
  try {
    return readFileSync(path, 'utf8')
  } catch (e) {
    throw new Error(`CPT_SLURM: expected JSON or the path of a JSON file, got ${path}: ${(e as Error).message}`, { cause: e })
  }
}

const jsonOf = (text: string, where: string): unknown => {
  try {
    return JSON.parse(text)
  } catch (e) {
    throw new Error(`${where}: not JSON: ${(e as Error).message}`, { cause: e })
  }
}
