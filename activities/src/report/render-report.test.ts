import { beforeAll, expect, test } from 'vitest'
import { renderReport } from './render-report.ts'
import { sampleRun, type SampleRun } from './sample-run.fixture.ts'

const render = ({ request, source }: SampleRun): string => renderReport(request, source)
const textOf = (page: string): string => page.replace(/<style>[^]*?<\/style>|<script>[^]*?<\/script>/g, '').replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' ')
const tagsOf = (page: string): string[] => page.replace(/(<style>)[^]*?(<\/style>)|(<script>)[^]*?(<\/script>)/g, '$1$2$3$4').match(/<[^>]*>/g) ?? []

const evil = `"><script>alert(1)</script>'<img src=x onerror=alert(2)></title></style>]]>--><a href="https://evil.test">\u202Egpj\u2066\u001b[31m\u200b\ud800`
const poisoned = new Set(['topic', 'note', 'description', 'owner', 'reason', 'by', 'license', 'uri', 'workflowId', 'runId', 'run', 'verdict', 'modelPath', 'weightsSha256', 'committedAt', 'path', 'key', 'stage'])

/** Puts hostile text wherever the contracts allow free text, and into the keys of counts. */
const poison = (value: unknown, field = ''): unknown => {
  if (typeof value === 'string') return poisoned.has(field) && !/^https?:/.test(value) ? value + evil : value
  if (Array.isArray(value)) return value.map((v) => poison(v, field))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [['byReason', 'bySource', 'byLanguage'].includes(field) ? k + evil : k, poison(v, k)]))
}

const poisonedRun = (): SampleRun => {
  const { request, source } = sampleRun()
  const free = new Set(['note'])
  const lines = request.lines.map((l) => ({ ...l, ...Object.fromEntries([...free].map((f) => [f, evil])) }))
  return {
    request: { ...(poison(request) as SampleRun['request']), lines, spec: { ...(poison(request.spec) as SampleRun['request']['spec']), name: evil, plan: request.spec.plan, evaluation: request.spec.evaluation } },
    source: {
      records: new Map([...source.records].map(([fp, r]) => [fp, r === null ? null : { ...r, committedAt: evil, result: poison(r.result) }])),
      curves: source.curves,
      sourceLines: new Map([...source.sourceLines].map(([f, of]) => [f, new Map([...of].map(([name, lines]) => [name + evil, lines]))])),
      decisions: source.decisions.map((d) => ({ ...d, inputs: poison(d.inputs), output: poison(d.output) })),
    },
  }
}

const ours = 'a b body button caption circle clipPath code dd defs details div dl doctype dt figcaption figure footer g h head header html i li main meta nav ol p path polyline pre rect script section small span strong style summary svg table tbody td tfoot text th thead title tr u ul'.split(' ')
let hostile = ''
beforeAll(() => (hostile = render(poisonedRun())))

test('hostile text stays text, in the page and in its pictures', () => {
  const page = hostile
  expect(textOf(page)).toContain('&lt;script&gt;alert(1)&lt;/script&gt;')
  const names = new Set(tagsOf(page).map((t) => /^<[/!]?([a-zA-Z]+)/.exec(t)?.[1]))
  expect([...names].filter((n) => n === undefined || !ours.includes(n))).toEqual([])
  expect(page.match(/<script/g)).toHaveLength(1)
  expect(page.match(/<style/g)).toHaveLength(1)
  expect(tagsOf(page).filter((t) => /\son[a-z]+\s*=/i.test(t.replace(/="[^"]*"/g, '=""')))).toEqual([])
})

test('every topic of a chart is escaped inside the SVG too', () => {
  const page = hostile
  const drawings = page.match(/<svg [^]*?<\/svg>/g) ?? []
  expect(drawings.length).toBeGreaterThan(8)
  for (const svg of drawings) {
    const attributes = new Set((svg.match(/<[^>]*>/g) ?? []).flatMap((t) => [...t.replace(/="[^"]*"/g, '=').matchAll(/\s([a-zA-Z:-]+)=/g)].map((m) => m[1])))
    expect([...attributes].filter((a) => /^on|href|src/i.test(String(a)))).toEqual([])
    expect(svg).not.toContain('<script')
  }
  expect(drawings.some((svg) => svg.includes('&lt;script&gt;'))).toBe(true)
})

test('tells how often personal data was found, by kind and language, and nothing where it was not looked for', () => {
  const run = sampleRun()
  const page = textOf(render(run))
  expect(page).toContain('Personal data in 57 of 2,100 documents looked at; models read placeholders in its place.')
  expect(page).toContain('Personal data email phone id-number English 40 9 0 Chinese 8 22 2')
  const without = { ...run, request: { ...run.request, lines: run.request.lines.filter((l) => l.key !== 'find-personal-data') } }
  expect(textOf(render(without))).not.toContain('Personal data')
})

test('characters that hide or reorder text are written out', () => {
  const page = hostile
  expect(page).toContain('⟨U+202E⟩')
  expect(page).toContain('⟨U+001B⟩')
  expect(page).toContain('⟨U+D800⟩')
  expect(page).not.toMatch(/(?![\t\n\r\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}]/u)
})

test('the page loads nothing from outside and forbids it', () => {
  for (const tag of tagsOf(hostile).map((t) => t.replace(/(?:aria-label|title|content)="[^"]*"/g, ''))) {
    expect(tag).not.toMatch(/https?:|\/\/|javascript:/i)
    expect(tag).not.toMatch(/\s(?:src|action|poster|srcset|xlink:href)=|\shref="(?!#)|url\((?!#)/i)
  }
  const page = render(sampleRun())
  expect(page).not.toMatch(/@import|url\((?!#)/)
  expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-`)
})

test('lines in = kept + quarantined, and a count that does not add up is named', () => {
  const run = sampleRun()
  expect(textOf(render(run))).toContain('5,230 lines in = 5,199 kept + 31 quarantined')
  expect(textOf(render(run))).not.toContain('does not add up')
  const record = run.source.records.get(run.request.lines[0]!.fingerprint)!
  ;(record.result as { counts: { kept: number } }).counts.kept = 5190
  expect(textOf(render(run))).toContain('does not add up: 9 lines are unaccounted for')
})

test('each source and language has a line with what every stage left of it, in the order of the stages', () => {
  const text = textOf(render(sampleRun()))
  expect(text).toContain('Source Language Read After filter After dedup After decontaminate After hold-out Left Tokens')
  expect(text).toContain('dirty English 300 190 110 103 103 34.3 % 59,225')
  expect(text).toContain('dirty Chinese 80 76 71 70 0 0.0 % 0')
  expect(text).toContain('dirty filter too-short 61 16.05 %')
  expect(text).toContain('dirty 411 31 7.54 %')
})

test('the tails of perplexity are told, with the documents at both ends by where they lie', () => {
  const text = textOf(render(sampleRun()))
  expect(text).toContain('nor do 1 document whose loss is not finite. It read 1,804,540 tokens, with 1.93 % of padding (6.1e+12 FLOP).')
  // of 4,540 documents the middle one is in bin 250: exp(250.5 · 0.02)
  expect(text).toContain('Percentiles of perplexity over documents 1 % 5 % 25 % 50 % 75 % 95 % 99 % 55.1 100.5 149.9 149.9 223.6 607.9 607.9')
  expect(text).toContain('@3/15 4,064 211')
  expect(text).toContain('npx cpt corpus inspect quickstart @shard/row')
})

test('the summary says in words what changed, by how much and how sure', () => {
  const text = textOf(render(sampleRun()))
  expect(text).toContain('Chinese loss fell by 0.41 ± 0.01 nats per token (perplexity 316.7 → 209.6)')
  expect(text).toContain('retained English, rose by 0.02 ± 0.01, within the tolerance of 0.05')
})

test('a classifier is shown with what it takes for what, and with its share of Others', () => {
  const text = textOf(render(sampleRun()))
  expect(text).toContain('mean F1 of its topics 0.76, trained on 1,200. Of them 11.0 % are taken for “Others”; 23.6 % are below the least probability')
  expect(text).toMatch(/What is taken for what.*1 Mathematics and Physics\s*13\s*6\s*·/s)
  expect(text).toContain('no word known')
})

test('a rise that the interval does not keep within the tolerance is not called within', () => {
  const run = sampleRun()
  const key = run.request.lines.find((l) => l.key === 'final/compare-perplexity')!.fingerprint
  const groups = (run.source.records.get(key)!.result as { groups: { group: string; deltaNll: number; seNll: number }[] }).groups
  groups.find((g) => g.group === 'retention')!.deltaNll = 0.045
  expect(textOf(render(run))).toContain('not shown to be within the tolerance')
  groups.find((g) => g.group === 'retention')!.deltaNll = 0.09
  expect(textOf(render(run))).toContain('beyond the tolerance')
})

test.each([...new Set(sampleRun().request.lines.map((l) => l.stage))])('missing records of %s leave a page without a false number', (stage) => {
  const run = sampleRun()
  for (const line of run.request.lines) if (line.stage === stage) run.source.records.set(line.fingerprint, null)
  const text = textOf(render(run))
  expect(text).not.toMatch(/NaN|undefined|Infinity|\[object/)
  expect(text).toContain('How to reproduce')
})

test('a run that ended before its first stage still has a page', () => {
  const { request } = sampleRun()
  const text = textOf(render({ request: { ...request, lines: [], decisions: [], operator: [], verdict: 'undecided', modelPath: null }, source: { records: new Map(), curves: new Map(), sourceLines: new Map(), decisions: [] } }))
  expect(text).toContain('this run has no such stage')
  expect(text).not.toMatch(/NaN|undefined|Infinity|\[object/)
})

test('a record of another contract is named, not guessed at', () => {
  const run = sampleRun()
  run.source.records.get(run.request.lines.find((l) => l.key === 'score-ppl')!.fingerprint)!.result = { counts: 'many' }
  expect(textOf(render(run))).toContain('not of a form this report can read')
})

test('the same run gives the same bytes', () => {
  expect(render(sampleRun())).toBe(render(sampleRun()))
})

test('restarts are marked on the curve and told in words', () => {
  const page = render(sampleRun())
  expect(page).toContain('restart (1)')
  expect(textOf(page)).toContain('attempt 2 went on from step 60')
})

test('skipped windows are told with their place and cause, and trained + skipped is what was planned', () => {
  const run = sampleRun()
  expect(textOf(render(run))).not.toContain('skipped')
  const record = run.source.records.get(run.request.lines.find((l) => l.key === 'bilingual/round-1/train')!.fingerprint)!
  Object.assign(record.result as object, { amendments: [{ fromToken: 40_960, toToken: 106_496, reason: 'spike', step: 26 }, { fromToken: 200_704, toToken: 204_800, reason: 'not-finite', step: 50 }] })
  const text = textOf(render(run))
  expect(text).toContain('of 491,520 planned tokens 421,888 were trained and 69,632 skipped')
  expect(text).toContain('tokens 40,960 to 106,496 (the loss spiked at step 26); tokens 200,704 to 204,800 (the loss or its gradient was no number at step 50)')
  expect(text).toContain('Tokens skipped')
})

const validated = (best: { step: number; nllPerToken: number }): SampleRun => {
  const run = sampleRun()
  const { fingerprint } = run.request.lines.find((l) => l.key === 'synthetic/round-1/train')!
  Object.assign(run.source.records.get(fingerprint)!.result as object, {
    validations: { uri: `store:${fingerprint}/validation.jsonl`, sha256: 'a'.repeat(64), bytes: 300 },
    best: { ...best, tokens: best.step * 4096, model: { uri: `store:${fingerprint}/best/`, sha256: 'b'.repeat(64), bytes: 3_400_000 } },
  })
  const validations = new Map([[fingerprint, [20, 40, 60].map((step) => ({ step, tokens: step * 4096, nllPerToken: step === best.step ? best.nllPerToken : 4.9 }))]])
  return { ...run, source: { ...run.source, validations } as SampleRun['source'] }
}

test('what the frozen sets showed within a round stands beside its loss, with the best step and whether it was taken', () => {
  const without = render(sampleRun())
  expect(textOf(without)).not.toContain('Best step')
  const page = render(validated({ step: 40, nllPerToken: 4.321 }))
  expect(textOf(page)).toContain('Training loss, loss of the frozen sets, and learning rate')
  expect(textOf(page)).toContain('Best step')
  // 983,040 tokens before the round, 40 steps of 4,096 in it
  expect(page).toContain('frozen sets best at 1,146,880 tokens with 4.321')
  expect(textOf(page)).toContain('The final model is that of the last step, 60; the best was step 40 of synthetic')
  expect(page.match(/var\(--c3\)/g)!.length).toBeGreaterThan(without.match(/var\(--c3\)/g)!.length + 3)
  const { request, source } = validated({ step: 40, nllPerToken: 4.321 })
  const taken = renderReport({ ...request, spec: { ...request.spec, training: { ...request.spec.training, validateEverySteps: 20, take: 'best' } } }, source)
  expect(textOf(taken)).toContain('The final model is that of step 40 of synthetic')
  expect(textOf(render(validated({ step: 60, nllPerToken: 4.2 })))).toContain('The final model is that of the last step, step 60 of synthetic')
})

test('what led to a run, as the verdict of a sweep, stands in its lineage', () => {
  const { request, source } = sampleRun()
  const page = renderReport({ ...request, spec: { ...request.spec, lineage: [{ what: 'verdict of <b>the</b> sweep', uri: `store:${'c'.repeat(64)}/verdict.json`, sha256: 'd'.repeat(64) }] } }, source)
  expect(textOf(page)).toContain('What led to this run')
  expect(page).toContain('verdict of &lt;b&gt;the&lt;/b&gt; sweep')
  expect(page).toContain('d'.repeat(64))
  expect(textOf(render({ request, source }))).not.toContain('What led to this run')
})

test('the size of the sets that models are measured on is told', () => {
  const run = sampleRun()
  const { measurement } = run.source.records.get(run.request.lines.find((l) => l.key === 'base/perplexity')!.fingerprint)!.result as { measurement: { strata: { tokens: number }[] } }
  const tokens = measurement.strata.reduce((sum, s) => sum + s.tokens, 0)
  expect(textOf(render(run))).toContain(`A model is measured on ${tokens.toLocaleString('en')} tokens of `)
})

test('a run with another tokenizer than its base is compared per byte, and told in tokens of the base', () => {
  const retold = (factor: number): SampleRun => {
    const run = sampleRun()
    for (const line of run.request.lines.filter((l) => l.stage === 'train')) {
      const record = run.source.records.get(line.fingerprint)!
      for (const s of (record.result as { measurement: { strata: { tokens: number; nllPerToken: number }[] } }).measurement.strata) Object.assign(s, { tokens: s.tokens / factor, nllPerToken: s.nllPerToken * factor })
    }
    return { ...run, request: { ...run.request, spec: { ...run.request.spec, base: { ...run.request.spec.base, tokenizer: 'samples:tokenizer.json' } } } }
  }
  // half as many tokens of twice the loss are the same text at the same loss
  expect(render(retold(2))).toBe(render(retold(1)))
  expect(textOf(render(retold(2)))).toContain('A token here is one of the base’s throughout.')
  expect(textOf(render(sampleRun()))).not.toContain('A token here')
})
