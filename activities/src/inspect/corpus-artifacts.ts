import type { ArtifactRef, CommitRecord } from '@cpt/contracts/artifact'
import { classifyTopics } from '@cpt/contracts/topics'
import { decontaminate } from '@cpt/contracts/decontaminate'
import { dedup } from '@cpt/contracts/dedup'
import { filter } from '@cpt/contracts/filter'
import { holdOut } from '@cpt/contracts/hold-out'
import { importTokens } from '@cpt/contracts/import-tokens'
import { ingest } from '@cpt/contracts/ingest'
import { sampleMixture } from '@cpt/contracts/sample-mixture'
import { scorePpl } from '@cpt/contracts/score-ppl'
import { scoreQuality } from '@cpt/contracts/score-quality'
import type { Stage } from '@cpt/contracts/stage'
import { synthesizeQa } from '@cpt/contracts/synthesize-qa'
import { tokenize } from '@cpt/contracts/tokenize'
import { z } from 'zod'
import type { ArtifactStore } from '../artifact-store/artifact-store.ts'

/** A corpus and what was made of it, row by row, as far as the stages went; `steps` are those that judged it, in their order. */
export interface CorpusArtifacts {
  corpus: ArtifactRef
  quarantine: ArtifactRef | null
  steps: { stage: string; verdicts: ArtifactRef }[]
  topics: ArtifactRef | null
  quality: ArtifactRef | null
  index: ArtifactRef | null
  scores: ArtifactRef | null
}

export interface Inspectable {
  pools: CorpusArtifacts[]
  /** Token plans in the order in which they were made. */
  plans: ArtifactRef[]
  validation: ArtifactRef[]
}

const judging: Stage[] = [filter, dedup, decontaminate, scoreQuality, holdOut]
const Of = z.object({ corpus: z.object({ sha256: z.string() }) })
const Indexed = z.object({ index: z.object({ sha256: z.string() }) })

/** What documents can be asked about, among the commits of these fingerprints and all that they were made from. */
export const corpusArtifacts = async (store: Pick<ArtifactStore, 'record'>, fingerprints: Iterable<string>): Promise<Inspectable> => {
  const records = [...(await withAncestors(store, fingerprints)).values()].filter((r) => !isUnit(r)).sort((a, b) => (a.committedAt < b.committedAt ? -1 : 1))
  const of = (...stages: Stage[]): CommitRecord[] => records.filter((r) => stages.some((s) => s.name === r.stage))
  return {
    // what is scored and named by its place is the first, whichever was committed first
    pools: [ingest, importTokens, synthesizeQa].flatMap((s) => of(s)).map((record) => artifactsOf(record, of)),
    plans: of(sampleMixture).flatMap((r) => sampleMixture.result.safeParse(r.result).data?.plan ?? []),
    validation: of(holdOut).flatMap((r) => holdOut.result.safeParse(r.result).data?.validation ?? []),
  }
}

/** A shard's own commit: what it is part of has the manifests. */
const isUnit = ({ result }: CommitRecord): boolean => z.object({ outputs: z.unknown() }).safeParse(result).success

const withAncestors = async (store: Pick<ArtifactStore, 'record'>, fingerprints: Iterable<string>): Promise<Map<string, CommitRecord>> => {
  const found = new Map<string, CommitRecord>()
  const asked = new Set<string>()
  let next = [...fingerprints]
  while (next.length > 0) {
    for (const f of next) asked.add(f)
    const records = (await Promise.all(next.map((f) => store.record(f)))).filter((r) => r !== null)
    for (const record of records) found.set(record.fingerprint, record)
    next = [...new Set(records.flatMap((r) => r.parents))].filter((f) => !asked.has(f))
  }
  return found
}

const Made = z.object({ corpus: z.custom<ArtifactRef>(), quarantine: z.custom<ArtifactRef>().optional(), index: z.custom<ArtifactRef>().optional() })
const Judged = z.object({ verdicts: z.custom<ArtifactRef>() })
const Drops = z.object({ drops: z.array(z.custom<ArtifactRef>()) })

const artifactsOf = (record: CommitRecord, of: (...stages: Stage[]) => CommitRecord[]): CorpusArtifacts => {
  const { corpus, quarantine = null, index: own = null } = Made.parse(record.result)
  const mine = (r: CommitRecord): boolean => Of.safeParse(r.request).data?.corpus.sha256 === corpus.sha256
  const tokenized = of(tokenize).findLast(mine)
  const index = tokenize.result.safeParse(tokenized?.result).data?.index ?? own
  const topics = of(classifyTopics).findLast(mine)
  const quality = of(scoreQuality).findLast(mine)
  const scores = of(scorePpl).findLast((r) => index !== null && Indexed.safeParse(r.request).data?.index.sha256 === index.sha256)
  return {
    corpus,
    quarantine,
    steps: stepsOf(of(...judging).filter(mine), tokenized),
    topics: classifyTopics.result.safeParse(topics?.result).data?.topics ?? null,
    quality: scoreQuality.result.safeParse(quality?.result).data?.quality ?? null,
    index,
    scores: scorePpl.result.safeParse(scores?.result).data?.scores ?? null,
  }
}

/** The verdicts that counted: those tokenize was given, or before it the last of each stage. */
const stepsOf = (judged: readonly CommitRecord[], tokenized: CommitRecord | undefined): CorpusArtifacts['steps'] => {
  const verdictsOf = (r: CommitRecord): ArtifactRef | undefined => Judged.safeParse(r.result).data?.verdicts
  const given = Drops.safeParse(tokenized?.request).data?.drops.map((d) => d.sha256)
  const counted = given === undefined ? judging.flatMap((s) => judged.findLast((r) => r.stage === s.name) ?? []) : given.flatMap((sha256) => judged.find((r) => verdictsOf(r)?.sha256 === sha256) ?? [])
  return counted.flatMap((r) => {
    const verdicts = verdictsOf(r)
    return verdicts === undefined ? [] : [{ stage: r.stage, verdicts }]
  })
}
