import { ResolveFailure, type Parked, type RunProgress, type StageLine } from '@cpt/contracts/cpt-run'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { pageText } from './page.ts'

const line = (over: Partial<StageLine>): StageLine => ({ key: 'ingest', stage: 'ingest', state: 'done', fingerprint: 'f', startedAtMs: 0, seconds: 1.25, jobSeconds: 1, attempts: 1, note: 'fine', ...over })
const parked = (over: Partial<Parked> = {}): Parked => ({ stage: 'stage-1/round-1/train', park: 2, type: 'LossNotFinite', message: 'loss is NaN', cause: 'too high', suggest: 'retry lower', actions: ['retry', 'abort'], logTail: ['last words'], sinceMs: 0, ...over })
const state = (over: Partial<RunProgress>): RunProgress => ({ status: 'running', paused: false, current: 'ingest', stages: [], parked: [], decisions: [], recoveries: 0, live: null, ...over })

/** Cells of a row of a GitHub table: an odd number of backslashes before a pipe escapes it. */
const cells = (row: string): number => [...row.matchAll(/(\\*)\|/g)].filter(([, slashes]) => slashes!.length % 2 === 0).length - 1
/** Characters that could mark text up and are not escaped. */
const loose = (text: string): string[] => [...text.matchAll(/(\\*)([`*_{}[\]<>|~#&!\\])/gs)].flatMap(([, slashes, c]) => (c !== '\\' && slashes!.length % 2 === 0 ? [c!] : []))
const blocksOf = (page: string, language: string): string[] => [...page.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)\n\`\`\`$`, 'gms'))].map((m) => m[1]!)

const hostile = fc.oneof(
  fc.string({ maxLength: 200 }),
  fc.string({ unit: 'binary', maxLength: 200 }),
  fc.array(fc.constantFrom('|', '\\', '`', '```', '\n', '\r\n', '\n\n', '# ', '[x](javascript:alert(1))', '<script>', '![](http://x/)', '*', '_', '\u202e', '\u001b[2J', ' ', 'a', '- ', '1. ', '---', '&lt;', "'", '"', '$(id)', ';'), { maxLength: 30 }).map((x) => x.join('')),
)

const on = (workflowId: string) => ({ workflowId, namespace: 'cpt' })

describe('text from outside', () => {
  test('never adds a line, a table cell or any markup', () => {
    const shape = (text: string) => pageText(state({ status: 'parked', parked: [parked({ message: text, logTail: [text] })], stages: [line({ note: text })] }), on(text === '' ? 'x' : text), []).split('\n')
    const plain = shape('plain')
    fc.assert(
      fc.property(hostile, (text) => {
        const lines = shape(text)
        expect(lines).toHaveLength(plain.length)
        lines.forEach((l, i) => {
          if (plain[i]!.startsWith('```')) expect(l).toBe(plain[i])
          else if (plain[i]!.startsWith('|')) expect(cells(l)).toBe(4)
          else expect(l.startsWith('```')).toBe(false)
          expect(l).not.toMatch(/[\u0000-\u001f\u007f\u202a-\u202e]/)
        })
        const message = lines[plain.indexOf('plain')]!
        expect(loose(message)).toEqual([])
        expect(message).not.toMatch(/^(?:[-+=]|\s|\d+[.)])/)
      }),
    )
  })

  test('of a thousand lines is cut, also where the cut falls on an escape', () => {
    const page = pageText(state({ stages: [line({ note: '|'.repeat(10_000) })] }), on('x'), [])
    expect(page.length).toBeLessThan(5_000)
    expect(cells(page.split('\n').at(-1)!)).toBe(4)
  })

  test('stands in the command as one word of the shell', () => {
    const commandFor = (id: string) => blocksOf(pageText(state({ parked: [parked()] }), on(id), []), 'sh')[0]
    expect(commandFor('cpt/quickstart')).toBe('npx cpt resolve cpt/quickstart --stage stage-1/round-1/train --park 2 --action retry')
    expect(commandFor('my run; rm -rf ~')).toContain("resolve 'my run; rm -rf ~' --stage")
    expect(commandFor("it's $(id)")).toContain(String.raw`resolve 'it'\''s $(id)' --stage`)
  })
})

describe('a parked stage', () => {
  test('shows an answer that can be pasted as it stands', () => {
    const page = pageText(state({ status: 'parked', parked: [parked(), parked({ stage: 'final/gsm8k', park: 1, actions: ['skip', 'abort'] })] }), on('cpt/x'), [])
    const answers = blocksOf(page, 'json').map((text) => ResolveFailure.parse(JSON.parse(text)))
    expect(answers.map(({ stage, park, action }) => ({ stage, park, action }))).toEqual([
      { stage: 'stage-1/round-1/train', park: 2, action: 'retry' },
      { stage: 'final/gsm8k', park: 1, action: 'skip' },
    ])
  })
  test('stands above everything else, with its cause, what to do and the last words of the log', () => {
    const page = pageText(state({ status: 'parked', parked: [parked()], stages: [line({})] }), on('cpt/x'), [])
    expect(page.indexOf('### Parked')).toBe(0)
    for (const said of ['Likely cause: too high', 'Suggested: retry lower', 'last words', 'Waiting for a person at stage-1/round-1/train']) expect(page).toContain(said)
  })
})

test('a running stage tells phase, share, step, loss, rate and what is left', () => {
  const live = { key: 'train', phase: 'training', done: 50, total: 200, step: 12, tokens: 4096, loss: 4.2519, tokensPerSecond: 9876.5, etaSeconds: 61.2, attempts: 1 }
  const page = pageText(state({ stages: [line({ key: 'train', state: 'running' })], live }), on('x'), [])
  expect(page).toContain('`train` training · 25 % · step 12 · loss 4.252 · 9877 tokens/s · 62 s left')
})

test('a stage without news is starting, and a finished one is a row of the table', () => {
  const page = pageText(state({ stages: [line({ key: 'filter', state: 'running' }), line({ state: 'reused', note: '5 lines' })] }), on('x'), ['Report: http://here'])
  expect(page).toContain('- `filter` starting')
  expect(page).toMatch(/^\| `ingest`\s+\| 5 lines\s+\| reused\s+\| 1\.3 \|$/m)
  expect(page).toContain('Report: http://here')
})

test('what waits on another page is told with the way there, and what to paste and run for it', () => {
  const waits = [{ workflowId: 'sweep/a b/trial-3', stage: 'trial/round-1/train', park: 2, type: 'DiskFull' as const, message: 'no [space](http://x)', cause: 'full', suggest: 'free space', actions: ['retry' as const, 'abort' as const] }]
  const page = pageText(state({ status: 'parked', waits, stages: [line({ key: 'trial-3', state: 'parked' })] }), { workflowId: 'sweep/a b', namespace: 'cpt' }, [])
  expect(page).toContain('[its page](/namespaces/cpt/workflows/sweep%2Fa%20b%2Ftrial-3)')
  expect(page).not.toContain('[space](')
  expect(blocksOf(page, 'json').map((b) => JSON.parse(b) as unknown)).toEqual([{ stage: 'trial/round-1/train', park: 2, action: 'retry', reason: '' }])
  expect(blocksOf(page, 'sh')[0]).toContain("npx cpt resolve 'sweep/a b/trial-3' --stage trial/round-1/train --park 2 --action retry")
  expect(page).toContain('Waiting for a person at sweep/a b/trial-3')
})
