import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { ControlActivities, ReportRequest } from '@cpt/contracts/activities'
import { train } from '@cpt/contracts/train'
import { z } from 'zod'
import type { Deps } from '../deps.ts'
import { replaceFile } from '../replace-file.ts'
import { renderReport } from './render-report.ts'
import { changes } from './summary.ts'
import { timing } from './timing.ts'
import { viewOf, type CurvePoint, type ReportSource } from './view.ts'

const CurveLine = z.object({ step: z.number(), tokens: z.number(), loss: z.number(), lr: z.number() })
const Recorded = z.object({ inputs: z.unknown(), output: z.unknown() })

/** Reads what a run committed and writes its page, beside a small summary for lists of runs. Safe to repeat. */
export const writeReport =
  ({ store, config, log }: { store: Pick<Deps['store'], 'record' | 'read' | 'get'>; config: Pick<Deps['config'], 'reportsDir' | 'reportsUrl'>; log?: Pick<Deps['log'], 'warn'> }): ControlActivities['writeReport'] =>
  async (request) => {
    const source = await readSource(store, request, (what, error) => log?.warn({ err: error, what }, 'report: something could not be read and is shown as missing'))
    const folder = folderOf(request)
    const dir = join(config.reportsDir, folder)
    await mkdir(dir, { recursive: true })
    const path = join(dir, 'index.html')
    await replaceFile(path, renderReport(request, source))
    await replaceFile(join(dir, 'run.json'), JSON.stringify(summaryOf(request, source, folder)))
    return { path, url: config.reportsUrl === null ? pathToFileURL(path).href : `${config.reportsUrl.replace(/\/$/, '')}/${folder}/index.html` }
  }

/** Workflow ids are free text: the folder is a slug to read and a hash to tell runs apart. */
export const folderOf = ({ workflowId, runId }: Pick<ReportRequest, 'workflowId' | 'runId'>): string => {
  const slug = workflowId.toLowerCase().replace(/[^a-z0-9]+/g, '-').slice(0, 40).replace(/^-+|-+$/g, '')
  return `${slug || 'run'}-${createHash('sha256').update(`${workflowId}\0${runId}`).digest('hex').slice(0, 10)}`
}

/** What a list of runs shows. */
const summaryOf = (request: ReportRequest, source: ReportSource, folder: string) => {
  const view = viewOf(request, source)
  return {
    format: 'cpt-report/1',
    run: request.run,
    workflowId: request.workflowId,
    runId: request.runId,
    folder,
    startedAtMs: request.startedAtMs,
    wallSeconds: timing(request).totalSeconds,
    verdict: request.verdict,
    owner: request.spec.owner,
    targetLanguage: request.spec.targetLanguage,
    tokens: view.rounds.reduce((sum, r) => sum + (r.train?.tokens ?? 0), 0),
    change: (changes(view) ?? []).map(({ group, deltaNll, seNll }) => ({ group, deltaNll, seNll })),
    modelPath: request.modelPath,
    // what `cpt gc` keeps as long as the report is there
    fingerprints: [...source.records.keys()],
    decisions: request.decisions.map((d) => d.uri),
  }
}

type Missed = (what: string, error: unknown) => void

/** A report is of most use when something went wrong: what cannot be read is left out, never fatal. */
const readSource = async (store: Pick<Deps['store'], 'record' | 'read' | 'get'>, request: ReportRequest, missed: Missed): Promise<ReportSource> => {
  const orNull = async <T>(what: string, reading: Promise<T>): Promise<T | null> => {
    try {
      return await reading
    } catch (e) {
      missed(what, e)
      return null
    }
  }
  const fingerprints = [...new Set(request.lines.map((l) => l.fingerprint).filter((f) => f !== ''))]
  const records = new Map(await Promise.all(fingerprints.map(async (f) => [f, await orNull(f, store.record(f))] as const)))
  const curves = new Map<string, CurvePoint[]>()
  for (const [fingerprint, record] of records) {
    const trained = record?.stage === train.name ? train.result.safeParse(record.result).data : undefined
    if (trained !== undefined) curves.set(fingerprint, parseCurve(await orNull(trained.curve.uri, store.read(trained.curve))))
  }
  const decisions = await Promise.all(
    request.decisions.map(async ({ key, kind, uri }) => {
      const recorded = Recorded.safeParse(parseJson(await orNull(uri, store.get(uri)))).data
      return { key, kind, inputs: recorded?.inputs ?? null, output: recorded?.output ?? null }
    }),
  )
  return { records, curves, decisions }
}

/** Lines that are not of the curve's form are left out. */
const parseCurve = (bytes: Uint8Array | null): CurvePoint[] =>
  Buffer.from(bytes ?? new Uint8Array())
    .toString('utf8')
    .split('\n')
    .flatMap((line) => CurveLine.safeParse(parseJson(line)).data ?? [])

const parseJson = (data: Uint8Array | string | null): unknown => {
  try {
    return JSON.parse(typeof data === 'string' ? data : Buffer.from(data ?? new Uint8Array()).toString('utf8')) as unknown
  } catch {
    return null
  }
}
